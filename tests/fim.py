"""A model with fill-in-the-middle tokens, made from one without.

No small model with such tokens ships inside a package, and without them llama.cpp's
server refuses /infill. The engine's path for a suffix has to be tested against the
real server, so three unused special tokens of the vocabulary take the roles of the
FIM tokens. The model was never trained to fill gaps: its text is meaningless, but the
format of the answer is real.
"""

from pathlib import Path

from gguf import GGUFReader, GGUFValueType, GGUFWriter, Keys
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata
from tqdm import tqdm

# A progress bar would leave a thread running.
tqdm.monitor_interval = 0

# Not <reponame>: llama.cpp recognizes it by name and uses it otherwise.
_PARTS = {
    Keys.Tokenizer.FIM_PRE_ID: "<jupyter_start>",
    Keys.Tokenizer.FIM_SUF_ID: "<jupyter_text>",
    Keys.Tokenizer.FIM_MID_ID: "<jupyter_code>",
}


def make(source: Path, target: Path) -> Path:
    """Write the model *source* to *target*, with these tokens and all tensors.

    Raises ValueError if the vocabulary lacks them.
    """
    reader = GGUFReader(source)
    tokens = reader.fields[Keys.Tokenizer.LIST].contents()
    ids = {key: tokens.index(token) for key, token in _PARTS.items()}
    added = {k: MetadataDetails(GGUFValueType.UINT32, v) for k, v in ids.items()}
    arch = reader.fields[Keys.General.ARCHITECTURE].contents()
    copy_with_new_metadata(reader, GGUFWriter(target, arch), added, [])
    return target
