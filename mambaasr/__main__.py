"""`python -m mambaasr` is the command `mambaasr`."""

from mambaasr.bin.main import entry

if __name__ == "__main__":
    entry()
