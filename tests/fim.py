"""A model with fill-in-the-middle tokens, made of one without.

No small model with such tokens ships inside a package, and without them llama.cpp's
server refuses /infill. The engine's path for a suffix has to be tested against the
real server, so this gives the parts of the three tokens to special tokens that the
vocabulary has and prompts leave alone. The model was never trained to fill gaps: its
text means nothing, but the shape of the answer is real.
"""

from pathlib import Path

from gguf import GGUFReader, GGUFValueType, GGUFWriter, Keys
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata
from tqdm import tqdm

# The progress bar of the copy would leave a thread behind.
tqdm.monitor_interval = 0

# Not <reponame>: llama.cpp finds that one by its name, and has another use for it.
_PARTS = {
    Keys.Tokenizer.FIM_PRE_ID: "<jupyter_start>",
    Keys.Tokenizer.FIM_SUF_ID: "<jupyter_text>",
    Keys.Tokenizer.FIM_MID_ID: "<jupyter_code>",
}


def make(source: Path, target: Path) -> Path:
    """Write to *target* the model *source* with those tokens, tensors and all.

    Raises ValueError if the vocabulary lacks them.
    """
    reader = GGUFReader(source)
    tokens = reader.fields[Keys.Tokenizer.LIST].contents()
    ids = {key: tokens.index(token) for key, token in _PARTS.items()}
    added = {k: MetadataDetails(GGUFValueType.UINT32, v) for k, v in ids.items()}
    arch = reader.fields[Keys.General.ARCHITECTURE].contents()
    copy_with_new_metadata(reader, GGUFWriter(target, arch), added, [])
    return target
