"""What stories are made of: people, places, things, animals, weathers, problems and endings.

In sentences, {he} {him} {his} stand for the person and {fhe} {fhim} {fhis} for the friend.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A place: its name, where one is, where one goes, and what can be seen there."""

    name: str
    at: str
    to: str
    seen: tuple[str, ...]


@dataclass(frozen=True)
class Thing:
    """A thing, what one wants it for, what one does with it, and where it is kept."""

    name: str
    use: str
    using: str
    kept: str


@dataclass(frozen=True)
class Animal:
    """An animal, the sound that it made and what it likes to eat."""

    name: str
    sound: str
    food: str


@dataclass(frozen=True)
class Problem:
    """Something that happens to the thing and what is done about it; the mood of the end.

    not_for: things to which it cannot happen.
    """

    id: str
    mood: str
    told: tuple[str, ...]
    remedy: tuple[str, ...]
    not_for: tuple[str, ...] = ()


NAMES = (
    ("Anna", "she"), ("Ben", "he"), ("Carla", "she"), ("David", "he"), ("Emma", "she"),
    ("Frank", "he"), ("Grace", "she"), ("Henry", "he"), ("Iris", "she"), ("Jack", "he"),
    ("Kate", "she"), ("Liam", "he"), ("Maria", "she"), ("Paul", "he"), ("Ruth", "she"),
    ("Sam", "he"),
)  # fmt: skip
PLACES = (
    Place("park", "in the park", "to the park", ("a tall tree", "a white bench", "some birds")),
    Place("garden", "in the garden", "to the garden", ("a red rose", "an old tree", "some bees")),
    Place("forest", "in the forest", "to the forest", ("a brown bear", "a tall tree", "a quiet deer")),
    Place("river", "by the river", "to the river", ("a small boat", "many fish", "a flat stone")),
    Place("lake", "by the lake", "to the lake", ("a small boat", "a white duck", "many fish")),
    Place("sea", "by the sea", "to the sea", ("a big ship", "a white sail", "many fish")),
    Place("farm", "on the farm", "to the farm", ("a black horse", "a brown cow", "some sheep")),
    Place("school", "at school", "to school", ("a kind teacher", "many children", "a full board")),
    Place("library", "in the library", "to the library", ("many old books", "a quiet student", "a tall clock")),
    Place("market", "at the market", "to the market", ("fresh bread", "sweet apples", "a loud farmer")),
    Place("station", "at the station", "to the station", ("a long train", "many people", "a tall clock")),
    Place("zoo", "at the zoo", "to the zoo", ("a hungry lion", "a brown bear", "a tall bird")),
)  # fmt: skip
THINGS = (
    Thing("ball", "play a game", "played a game", "box"),
    Thing("book", "read a story", "read a story", "bag"),
    Thing("key", "open the door", "opened the door", "pocket"),
    Thing("hat", "look nice", "looked nice", "bag"),
    Thing("kite", "fly it high", "watched it fly high", "box"),
    Thing("lamp", "see in the dark", "saw well in the dark", "box"),
    Thing("map", "find the way", "found the way", "pocket"),
    Thing("pen", "write a letter", "wrote a letter", "pocket"),
    Thing("drum", "play some music", "played some music", "box"),
    Thing("coat", "keep warm", "kept warm", "bag"),
    Thing("rope", "climb the wall", "climbed the wall", "bag"),
    Thing("cup", "drink some water", "drank some water", "bag"),
)
ANIMALS = (
    Animal("dog", "began to bark", "meat"),
    Animal("cat", "said nothing", "fish"),
    Animal("bird", "began to sing", "bread"),
    Animal("horse", "shook its head", "apples"),
    Animal("duck", "made a loud sound", "bread"),
    Animal("goat", "shook its head", "grass"),
    Animal("rabbit", "said nothing", "carrots"),
    Animal("mouse", "made a small sound", "cheese"),
)
WEATHERS = (
    ("cold", "a warm coat"), ("hot", "a light shirt"), ("wet", "high boots"),
    ("sunny", "a big hat"), ("dark", "a white coat"),
)  # fmt: skip
BEGINNINGS = (
    "One {weather} day {name} put on {wear} and went {to} with a {color} {thing}. "
    "{He} wanted to {use} with {his} friend {friend}.",
    "{name} and {friend} were good friends. One {weather} morning they went {to} and saw {seen}. "
    "{name} had a {color} {thing} in {his} {kept}.",
    "{name} had a new {thing}. It was {color}, and {he} kept it in {his} {kept}. "
    "After lunch {he} took it {to} to {use}. {friend} came with {him}.",
    "Once upon a time {name} lived near the {place}. Every day {he} met {friend} {at} to {use}. "
    "{His} {thing} was old and {color}.",
    "It was a {weather} day, so {name} put on {wear}. On the way {to} {he} met {friend} and saw "
    "{seen}. {name} took out {his} {color} {thing} to {use}.",
    "{friend} waited for {name} {at}. There they saw {seen}. {name} came late, but {he} had "
    "a {color} {thing} in {his} {kept}.",
)
PROBLEMS = (
    Problem(
        "lost", "glad",
        ("But soon the {thing} was lost. {name} looked under the table and behind the tree.",
         "But then {name} could not find the {thing}. {He} looked in {his} {kept}, but it was empty."),
        ("At last {friend} found the {color} {thing} {at}, so they {using}.",
         "{friend} helped {him}, and {fhe} found the {thing} near the road, so they {using}."),
    ),
    Problem(
        "broken", "thankful",
        ("But the {thing} fell on a stone and broke. {name} was sad and began to cry.",
         "Suddenly {name} fell, and the {color} {thing} broke. {He} was very sad."),
        ("{friend} took some tools and fixed the {thing}. Then they {using}.",
         "{friend} knew how to fix it. {FHe} worked for an hour, and then they {using}."),
        not_for=("hat", "coat", "rope", "map", "book"),
    ),
    Problem(
        "torn", "thankful",
        ("But the {thing} got caught on a nail and tore. {name} was sad.",
         "Suddenly a strong wind came, and the {color} {thing} tore. {name} began to cry."),
        ("{friend} fixed the {thing} before evening. Then they {using}.",
         "{friend} took a needle and fixed it in an hour. After that they {using}."),
        not_for=("ball", "key", "lamp", "pen", "cup", "drum"),
    ),
    Problem(
        "animal", "fun",
        ("Suddenly a hungry {animal} came, took the {thing} and ran away.",
         "Then a {animal} came and took the {color} {thing}. {name} ran after it, but it was too fast."),
        ("{friend} gave the {animal} some {food}. It {sound} and gave the {thing} back.",
         "{friend} had some {food} for the {animal}. It {sound}, ate, and left the {thing} {at}."),
    ),
    Problem(
        "wish", "kind",
        ("{friend} liked the {color} {thing} very much, but {fhe} had no money to buy one.",
         "{friend} looked at the {thing} for a long time. {FHe} wanted one, but {fhe} was poor."),
        ("So {name} gave {fhim} the {thing}, and they {using}.",
         "So {name} smiled and gave the {thing} to {fhim}. Together they {using}."),
    ),
    Problem(
        "rain", "home",
        ("Then the sky became dark and it began to rain. Soon the {thing} was wet.",
         "But after an hour a lot of rain fell, and {name} and {friend} were wet and cold."),
        ("They ran home, and {name} put the {color} {thing} near the fire.",
         "{friend} found a dry place. There they sat by a fire with the {thing}."),
    ),
)  # fmt: skip
ENDINGS = {
    "glad": (
        "{name} was glad and put the {thing} in {his} {kept}.",
        "{name} was happy again and thanked {friend}.",
        "In the evening {name} put the {color} {thing} back in {his} {kept}.",
    ),
    "thankful": (
        "{name} thanked {friend} and gave {fhim} some cake.",
        "{name} was happy and said that {friend} was {his} best friend.",
        "{name} laughed and thanked {fhim}.",
    ),
    "fun": (
        "{name} and {friend} laughed all the way home.",
        "{name} took the {thing}, and they laughed about the {animal}.",
        "After that the {animal} was their friend.",
    ),
    "kind": (
        "{friend} was very happy and thanked {him}.",
        "{friend} kept the {color} {thing} in {fhis} room, and {fhe} never forgot {name}.",
        "That night {name} was glad that {he} had helped {his} friend.",
    ),
    "home": (
        "They drank hot tea and told old stories until night.",
        "Soon {name} and {friend} were warm, and the {thing} was dry again.",
        "{name} made hot soup, and {friend} went to sleep.",
    ),
}
