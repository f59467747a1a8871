"""Neutral text: short stories of a small grammar in which what came before says what may follow.

A story has a person, a companion, a place, a thing and a problem with its remedy; names, pronouns,
the thing and the place come back, so that a language model has something to carry from one sentence
to the next.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from interpflow.config.identity import derived_seed
from interpflow.tasks.nlp.story_material import load_material

MIN_WORDS, MAX_WORDS = 40, 70
PRONOUNS = {
    "she": {"they": "she", "them": "her", "their": "her"},
    "he": {"they": "he", "them": "him", "their": "his"},
}


@dataclass(frozen=True)
class Story:
    """A story and what it was made of."""

    text: str
    name: str
    friend: str
    place: str
    thing: str
    problem: str


def story(seed: int) -> str:
    """A story of 40 to 70 words; the same for the same seed."""
    return told(random.Random(derived_seed(seed, "story"))).text


def stories(n: int, seed: int) -> list[str]:
    """`n` different stories; the same for the same seed, the first ones whatever `n` is."""
    rng = random.Random(derived_seed(seed, "stories"))
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts[told(rng).text] = None
    return list(texts)


def told(rng: random.Random) -> Story:
    """A story of `MIN_WORDS` to `MAX_WORDS` words drawn from `rng`."""
    while True:
        drawn = _draw(rng)
        if MIN_WORDS <= len(drawn.text.split()) <= MAX_WORDS:
            return drawn


def _draw(rng: random.Random) -> Story:
    parts = load_material()
    (name, gender), (friend, friend_gender) = rng.sample(parts.names, 2)
    place = rng.choice(parts.places)
    thing, color = rng.choice(parts.things), rng.choice(parts.colors)
    animal, (weather, wear) = rng.choice(parts.animals), rng.choice(parts.weathers)
    problem = rng.choice([entry for entry in parts.problems if thing.name not in entry.not_for])
    own, other = PRONOUNS[gender], PRONOUNS[friend_gender]
    words = {
        "name": name, "he": own["they"], "him": own["them"], "his": own["their"],
        "He": own["they"].capitalize(), "His": own["their"].capitalize(),
        "friend": friend, "fhe": other["they"], "fhim": other["them"], "fhis": other["their"],
        "FHe": other["they"].capitalize(),
        "place": place.name, "at": place.at, "to": place.to, "seen": rng.choice(place.seen),
        "thing": thing.name, "use": thing.use, "using": thing.using, "kept": thing.kept,
        "color": color, "animal": animal.name, "sound": animal.sound, "food": animal.food,
        "weather": weather, "wear": wear,
    }  # fmt: skip
    sentences = [rng.choice(parts.beginnings), rng.choice(problem.told), rng.choice(problem.remedy)]
    sentences.append(rng.choice(parts.endings[problem.mood]))
    text = " ".join(sentences).format(**words)
    return Story(text, name, friend, place.name, thing.name, problem.id)
