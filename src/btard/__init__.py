"""btard: strangers train one neural network together; the protocol finds the cheaters."""

__version__ = "0.1.0"
