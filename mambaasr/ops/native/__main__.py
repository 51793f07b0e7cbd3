"""``python -m mambaasr.ops.native [DIRECTORY]``: build the library and print where it is.

Not ``-m mambaasr.ops.native.build``: the package has imported that module before, and Python warns.
"""

import sys

from mambaasr.ops.native.build import BuildError, build

if __name__ == "__main__":
    try:
        print(build(*sys.argv[1:2]))
    except BuildError as error:
        sys.exit(f"error: {error}")
