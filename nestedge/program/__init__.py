"""Our flat graph: from torch.export and back, to and from JSON."""
