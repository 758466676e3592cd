"""The five papers' methods against their baselines, on CIFAR-10."""
