"""Generator plug-ins: one file per family, `cards/` for pretrained weights."""
