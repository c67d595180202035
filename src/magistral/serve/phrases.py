"""How thinking is closed by the server, in the language of the question."""

from __future__ import annotations

CLOSING = {
    "en": "I have thought long enough; I will answer now.",
    "fr": "J'ai assez réfléchi ; je réponds maintenant.",
    "es": "He pensado lo suficiente; ahora respondo.",
    "de": "Ich habe lange genug nachgedacht; ich antworte jetzt.",
    "it": "Ho riflettuto abbastanza; ora rispondo.",
    "ar": "لقد فكرت بما يكفي؛ سأجيب الآن.",
    "ru": "Я достаточно подумал; теперь отвечаю.",
    "zh": "我已经想得够久了\uff0c现在作答。",
}


def closing_phrase(question: str) -> str:
    """English where the language of the question is none of ours, or cannot be told."""
    from magistral.verifiers.language import language_of

    return CLOSING.get(language_of(question[:2000]) or "en", CLOSING["en"])
