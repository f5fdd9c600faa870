"""What all tests share."""

import torch

# Tensors here are tiny: threads cost more than they bring, above all when several test processes share the cores.
torch.set_num_threads(1)
