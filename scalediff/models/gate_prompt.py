"""What a prompt says without its subject."""

from __future__ import annotations

import re

# Where the first noun phrase of a prompt ends and its surroundings begin
ENDS = (
    *(
        "above",
        "across",
        "against",
        "among",
        "at",
        "before",
        "behind",
        "below",
        "beneath",
        "beside",
        "between",
    ),
    *(
        "by",
        "during",
        "from",
        "in",
        "inside",
        "near",
        "next to",
        "on",
        "over",
        "through",
        "under",
        "underneath",
    ),
    *("while", "with", "within"),
)
_END = re.compile(rf"[,;\n]|[.:](?!\d)|\b(?:{'|'.join(ENDS)})\b", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|one|two|three|some)\s+", re.IGNORECASE)


def without_subject(prompt: str, subject: str = "") -> str | None:
    """The prompt without its subject, None where there is nothing to remove or nothing would be left.

    `subject`: the words to leave out, several apart by commas. Empty: the first phrase of the prompt, up to a comma
    or a preposition, so that "a red fox in the snow, oil painting" becomes "snow, oil painting".
    """
    rest = _named(prompt, subject) if subject.strip() else _after_first_phrase(prompt)
    rest = _tidy(rest)
    return rest if rest and rest != _tidy(prompt) else None


def _named(prompt: str, subject: str) -> str:
    for words in filter(None, (part.strip() for part in subject.split(","))):
        pattern = r"\s+".join(map(re.escape, words.split()))
        prompt = re.sub(rf"(?<!\w){pattern}(?!\w)", "", prompt, flags=re.IGNORECASE)
    return prompt


def _after_first_phrase(prompt: str) -> str:
    end = _END.search(prompt)
    if not end:
        return ""
    # what the phrase leaves open, as in "(a fox in the snow:1.2)", is closed in what follows
    depth = prompt[: end.start()].count("(") - prompt[: end.start()].count(")")
    return "(" * max(0, depth) + _ARTICLE.sub("", prompt[end.end() :].lstrip())


def _tidy(text: str) -> str:
    """Without what removed words leave behind: empty brackets, doubled commas and spaces."""
    previous = None
    while previous != text:
        previous = text
        text = re.sub(r"[(\[]\s*(?::\s*[\d.]+)?\s*[)\]]", "", text)
    text = re.sub(r"(?:\s*,)+", ",", text)
    return re.sub(r"\s+", " ", text).strip(" ,")
