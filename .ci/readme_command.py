"""Print the N-th command of the README's opening console blocks: ``python .ci/readme_command.py N``."""

import re
import sys
from pathlib import Path

text = (Path(__file__).parents[1] / "README.md").read_text()
blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
print(lines[int(sys.argv[1]) - 1])
