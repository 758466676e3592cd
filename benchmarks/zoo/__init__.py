"""Every network of torchvision, nested and materialised."""
