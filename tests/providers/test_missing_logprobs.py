"""Log probabilities that were requested and did not come, in every reader."""

import pytest

from app.errors import UpstreamProtocol

from . import harness
from .recordings import MODE_CASES, ModeCase

# Some recordings have them.
SCORING = [
    case
    for case in MODE_CASES
    if "logprobs" in case.endpoint.params and b'"logprob":' not in case.whole
]
EVERY_SCORING_MODE = pytest.mark.parametrize("case", SCORING, ids=str)


@EVERY_SCORING_MODE
def test_whole_answer_without_logprobs_is_refused(case: ModeCase) -> None:
    to = {"via": case.mode}
    with pytest.raises(UpstreamProtocol, match="no log probabilities"):
        harness.whole(
            case.provider.name, case.whole, to=to, model=case.model, logprobs=0
        )


@EVERY_SCORING_MODE
def test_stream_without_logprobs_is_refused(case: ModeCase) -> None:
    decode, recorded = case.stream
    with pytest.raises(UpstreamProtocol, match="no log probabilities"):
        harness.streamed(
            case.provider.name,
            decode([recorded], 2**20),
            to={"via": case.mode},
            model=case.model,
            logprobs=0,
        )
