"""Letters of five by seven pixels, drawn for the plots that are written as PNG."""

from __future__ import annotations

from functools import cache

WIDTH, HEIGHT = 5, 7
#: a letter and its seven rows from the top, each a digit to the base 32 whose bits are the pixels from the left
_DRAWN = (
    " 0000000%cd248m6(4888884)8444448+044v440,0000064-000e000.00000cc/01248g00ehjlphe14c4444e2eh1248v3eh161he"
    "426aiv225vgu11he6cgguhhe7v1244888ehhehhe9ehhf12c:0660660AehhvhhhBuhhuhhuCehgggheDuhhhhhuEvgguggvFvgguggg"
    "GehgnhhfHhhhvhhhIe44444eJ72222icKhikokihLggggggvMhrllhhhNhplljhhOehhhhhePuhhugggQehhhlidRuhhukihSfgge11u"
    "Tv444444UhhhhhheVhhhhha4WhhhllrhXhha4ahhYhha4444Zv1248gv_000000va00e1fhfbgguhhhuc00eggged11fhhhfe00ehvge"
    "f68u8888g00fhv1ehgguhhhhi40c444ej20622ickggikokilc44444em00qllhhn00uhhhho00ehhhep00uhuggq00fhf11r00mpggg"
    "s00fge1ut88u8896u00hhhjdv00hhha4w00hhllax00ha4ahy00hhf1ez00v248v"
)


@cache
def _table() -> dict[str, tuple[int, ...]]:
    step = HEIGHT + 1
    parts = (_DRAWN[at : at + step] for at in range(0, len(_DRAWN), step))
    return {part[0]: tuple(int(digit, 32) for digit in part[1:]) for part in parts}


def glyph(letter: str) -> tuple[int, ...]:
    """Seven rows of five bits, the leftmost pixel highest; an empty box for a letter that is not drawn."""
    return _table().get(letter, (31, 17, 17, 17, 17, 17, 31))
