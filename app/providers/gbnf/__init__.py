"""Grammars in GBNF, read, bounded, and rewritten for llguidance.

llama.cpp reads GBNF itself, but on behalf of one caller in good faith: its parser
recurses without a bound, its search for left recursion takes time exponential in the
number of rules, and an ambiguous grammar multiplies its stacks with every character.
Bounds on size, depth and repetition alone prevent only the first. So the embedded
engine never gets GBNF: a grammar is parsed here (parser.py), checked (checks.py), and
written (lark.py) in the Lark dialect of llguidance, the other grammar engine inside of
llama.cpp, which bounds its own work for each token.

Sources: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md and
https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from functools import lru_cache

from .checks import check_left_recursion, check_references, check_repetition
from .lark import write_lark
from .parser import GBNFParser

# Characters of a grammar. Checked before anything is parsed.
MAX_LENGTH = 8192


# Each request converts its grammar twice: to check it, and to send it.
@lru_cache(maxsize=64)
def to_lark(grammar: str) -> str:
    """*grammar* for llguidance. Raises ValueError if it is wrong, or out of bounds."""
    if len(grammar) > MAX_LENGTH:
        raise ValueError(
            f"it has {len(grammar)} characters, and at most {MAX_LENGTH} are allowed"
        )
    rules = GBNFParser(grammar).rules()
    # In this order: the later checks look every reference up.
    check_references(rules)
    check_left_recursion(rules)
    check_repetition(rules)
    return write_lark(rules)
