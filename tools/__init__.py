"""What makes files of the repository that are generated. Not part of the package."""
