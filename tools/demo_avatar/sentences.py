"""Sentences to train on, put together from parts, and the ones that are kept out."""

from __future__ import annotations

import numpy as np

HELD_OUT_SENTENCES = (
    "The old lighthouse keeper waved at every passing ship.",
    "Could you bring me a cup of coffee and a piece of apple pie?",
    "Many people believe that winter mornings are beautiful.",
    "She sells sea shells by the sea shore, and he buys them all.",
    "Please remember to water the flowers on Wednesday.",
    "Wow! That was a huge wave, wasn't it?",
    "A quiet mouse moved behind the broken piano.",
    "My favourite number is seventy four thousand and five.",
    "Both brothers thought about the weather for a while.",
    "Open the window, take a deep breath, and count to nine.",
    "We will never forget the music of that summer.",
    "Judge Vaughan usually enjoys fresh orange juice.",
)

_SUBJECTS = (
    "the teacher", "my older sister", "a small brown dog", "the engineer", "our neighbour",
    "everybody", "the whole family", "a young painter", "the bus driver", "my best friend",
    "the woman in the red coat", "a group of children", "the baker", "nobody", "the committee",
    "your uncle", "a famous singer", "the pilot", "one of the judges", "the farmer",
    "the boy with the blue umbrella", "an elephant", "the programme", "this machine",
)  # fmt: skip
_VERBS = (
    "found", "opened", "carried", "painted", "forgot", "measured", "wanted", "bought", "finished",
    "described", "followed", "repaired", "watched", "chose", "threw away", "moved", "borrowed",
    "noticed", "improved", "explained", "washed", "picked up", "gave back", "pushed", "loved",
    "imagined", "shook", "hid", "visited", "avoided",
)  # fmt: skip
_OBJECTS = (
    "a heavy wooden box", "the blue bicycle", "five new books", "the answer", "a bowl of soup",
    "the longest bridge", "an orange balloon", "the map of the city", "a pair of shoes",
    "the broken window", "a letter from home", "the garden path", "a bottle of water",
    "the last piece of cake", "several good ideas", "the yellow house", "a very loud noise",
    "the television", "fresh bread and butter", "a photograph of the moon", "the measurement",
    "three white feathers", "a pure joy", "the thick rope", "some chewing gum", "the usual path",
)  # fmt: skip
_PLACES = (
    "in the kitchen", "near the river", "under the table", "on the way to school", "at noon",
    "before the storm", "behind the old theatre", "by the sea", "in the middle of the night",
    "after a long walk", "without a word", "on Thursday", "at the airport", "for the third time",
    "with both hands", "during the show", "above the clouds", "in February", "far away from here",
)  # fmt: skip
_OPENERS = (
    "", "", "", "Well, ", "However, ", "Yesterday, ", "To be honest, ", "Of course, ",
    "In my view, ", "Oh, ", "Suddenly, ", "As you know, ", "By the way, ", "This morning, ",
)  # fmt: skip
_QUESTIONS = (
    "Why did {s} {place} look at {o}?", "How many of us have seen {o}?",
    "Where is {o} that {s} {v}?", "Do you think {s} {v} {o}?", "Who {v} {o} {place}?",
    "When will {s} bring {o}?", "Is it true that {s} {v} {o} {place}?",
)  # fmt: skip
_STATEMENTS = (
    "{s} {v} {o} {place}.", "{place}, {s} {v} {o}.", "{s} {v} {o}, and {s2} {v2} {o2}.",
    "I am sure that {s} {v} {o}.", "{s} never {v} {o}, but {s2} did.",
    "There were {n} people, {n2} cats, and {o}.", "Call me at {n}, {n2}, or visit {s} {place}.",
    "Look! {s} {v} {o}!", "{s} said, yes, {o} costs {n} pounds.", "First, {o}. Then, {o2}.",
    "If {s} {v} {o}, {s2} will be pleased.", "Maybe. Perhaps {s} {v} {o} {place}.",
    "Boom, pop, wow, ooh, ah! {s} {v} {o}.", "Better a bit of butter than {o}.",
    "Moving, humming, mumbling, {s} {v} {o}.", "You should have shown {s2} {o}.",
)  # fmt: skip


def training_sentences(count: int, seed: int = 0) -> list[str]:
    """So many different sentences; none of them is held out."""
    rng = np.random.default_rng(seed)
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences.setdefault(_sentence(rng))
    return [text for text in sentences if text not in HELD_OUT_SENTENCES]


def _sentence(rng: np.random.Generator) -> str:
    def pick(words: tuple[str, ...]) -> str:
        return str(rng.choice(words))

    pattern = pick(_QUESTIONS if rng.random() < 0.25 else _STATEMENTS)
    text = pattern.format(
        s=pick(_SUBJECTS), s2=pick(_SUBJECTS), v=pick(_VERBS), v2=pick(_VERBS), o=pick(_OBJECTS),
        o2=pick(_OBJECTS), place=pick(_PLACES), n=rng.integers(2, 100), n2=rng.integers(2, 2000),
    )  # fmt: skip
    opener = pick(_OPENERS)
    return opener + text if opener else text[0].upper() + text[1:]
