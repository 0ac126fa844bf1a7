"""Mathematics of control and statistics that laws are made of: tensors in, tensors out, no language models."""
