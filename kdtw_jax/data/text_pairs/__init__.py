"""The tensorflow-datasets builder for text pairs; tensorflow-datasets wants a folder for each builder."""
