"""`python -m pocket_webui txt2img | img2img | serve`; see --help of each."""

import sys

from pocket_webui.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
