"""The version of ThinkVL: the package's, and what `thinkvl --version` prints."""

VERSION = "0.2.0"
