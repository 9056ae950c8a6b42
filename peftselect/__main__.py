"""``python -m peftselect``."""

from peftselect.cli import main

main()
