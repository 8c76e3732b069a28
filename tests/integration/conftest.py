"""Nothing here may reach for the network: all models are made in place, tiny and random."""

import os

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# The models are too small for more.
torch.set_num_threads(1)
