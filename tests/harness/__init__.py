"""What tests are built with: machines and child processes, as fixtures that `tests/conftest.py` offers to all."""
