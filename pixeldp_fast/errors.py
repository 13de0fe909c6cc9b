"""Every exception of the package: one class per thing a caller could react to."""


class PixelDPError(Exception):
    """Base of all errors raised on purpose by this package."""


class InvalidArgument(PixelDPError, ValueError):
    """An argument is outside what the function accepts; the message names it and the range."""


class UnsupportedModel(PixelDPError, ValueError):
    """The network cannot be certified as it is; the message names the module and the reason."""


class UnsupportedBackend(PixelDPError, RuntimeError):
    """The named backend cannot run this plan, mechanism, reduction or device."""


class DataError(PixelDPError, ValueError):
    """A data file is missing, truncated, of another format, or fails its checksum."""


class CheckpointError(PixelDPError, ValueError):
    """A checkpoint is truncated, of another architecture, or was edited."""


class RecordError(PixelDPError, ValueError):
    """A stored certificate is corrupt, edited, or lacks what the request needs."""


class RunFolderError(PixelDPError, RuntimeError):
    """A run folder is foreign, locked, unwritable, or was made with other settings."""


class TrainingDiverged(PixelDPError, ArithmeticError):
    """The loss or the weights left the finite numbers; the message says what to try."""


class MissingExtra(PixelDPError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class MissingCompiler(PixelDPError, RuntimeError):
    """A kernel shipped as source needs a compiler that is not here; the message says which."""


class CompilationFailed(PixelDPError, RuntimeError):
    """A kernel shipped as source does not compile or load; the message quotes the compiler."""
