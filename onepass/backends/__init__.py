"""Where programs run. Each backend is one file with ``step(updates)``; none knows another."""
