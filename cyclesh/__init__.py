"""Cycle- and shape-consistent translation and segmentation of multimodal 3D medical volumes."""

__version__ = "0.1.0"
