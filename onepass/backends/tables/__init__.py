"""What backends with tables of addresses share: tensors gathered into buckets, chunks, launches and their order."""
