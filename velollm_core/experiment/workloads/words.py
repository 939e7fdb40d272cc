"""The words that fill the templates. People and places are invented."""

from __future__ import annotations

FIRST_NAMES = (
    "Adela", "Alder", "Anouk", "Arlo", "Aurel", "Benno", "Birgit", "Bram", "Calla", "Casimir",
    "Celia", "Corin", "Dagny", "Damaris", "Dorian", "Edda", "Eamon", "Elin", "Emeka", "Esme",
    "Fabian", "Farida", "Felka", "Finn", "Gerda", "Gideon", "Greta", "Hadley", "Hamid", "Hedda",
    "Hollis", "Ilse", "Imre", "Ines", "Isko", "Jarek", "Jora", "Juno", "Kaito", "Kamala",
    "Kestrel", "Kiran", "Lasse", "Leocadia", "Linus", "Lotte", "Mairi", "Malik", "Marit", "Milo",
    "Mirela", "Nadia", "Nils", "Noor", "Odile", "Olin", "Oskar", "Paloma", "Perrin", "Petra",
    "Quill", "Rafe", "Ramona", "Renske", "Rohan", "Rosalind", "Sabela", "Selim", "Signe", "Soren",
    "Tamsin", "Tariq", "Thea", "Tilda", "Ursula", "Vanja", "Viggo", "Wanda", "Yara", "Zeno",
)  # fmt: skip

_SURNAME_STARTS = (
    "Ash", "Bar", "Beck", "Birch", "Brand", "Bright", "Cald", "Cole", "Crow", "Dun",
    "Elm", "Fair", "Fen", "Gar", "Gold", "Grim", "Hal", "Hart", "Hazel", "Holm",
    "Ker", "Lang", "Lin", "Mar", "Nor", "Oak", "Pel", "Quar", "Red", "Ros",
    "Sand", "Sel", "Stan", "Thorn", "Tor", "Ulver", "Var", "Wether", "Whit", "Yar",
)  # fmt: skip

_SURNAME_ENDS = (
    "aker", "berg", "bourne", "by", "croft", "dahl", "den", "dyke", "ell", "eson",
    "field", "gate", "gill", "ham", "holt", "hurst", "ing", "kamp", "land", "ley",
    "lock", "man", "mere", "mont", "nell", "over", "rick", "ridge", "row", "sen",
    "shaw", "stead", "stock", "strand", "ton", "vale", "ward", "wick", "win", "worth",
)  # fmt: skip

SURNAMES = tuple(start + end for start in _SURNAME_STARTS for end in _SURNAME_ENDS)

_TOWN_STARTS = (
    "Alder", "Amber", "Bell", "Black", "Bracken", "Brine", "Cinder", "Clover", "Copper", "Drift",
    "East", "Ember", "Fallow", "Frost", "Glass", "Grey", "Hollow", "Iron", "Kettle", "Lantern",
    "Maple", "Mill", "Moss", "North", "Otter", "Pine", "Quarry", "Raven", "Salt", "Silver",
    "Stone", "Swan", "Timber", "Upper", "Velvet", "Willow",
)  # fmt: skip

_TOWN_ENDS = (
    "bank", "beck", "bridge", "brook", "burn", "cliff", "combe", "cross", "dale", "down",
    "fell", "ferry", "ford", "gate", "glen", "haven", "heath", "hope", "keep", "market",
    "marsh", "mouth", "pool", "port", "quay", "reach", "side", "stow", "thorpe", "well",
)  # fmt: skip

TOWNS = tuple(start + end for start in _TOWN_STARTS for end in _TOWN_ENDS)

# Each begins with a consonant sound, so that "a" fits before it.
JOBS = (
    "baker", "beekeeper", "bell founder", "blacksmith", "boat builder", "bookbinder", "botanist",
    "bricklayer", "bus driver", "carpenter", "cartographer", "cellist", "chemist", "clockmaker",
    "cook", "cooper", "dairy farmer", "dentist", "ferry pilot", "florist", "forester", "gardener",
    "geologist", "glassblower", "harbour master", "joiner", "journalist", "judge", "lens grinder",
    "librarian", "lighthouse keeper", "locksmith", "mathematician", "midwife", "miller", "miner",
    "nurse", "painter", "paper maker", "pharmacist", "photographer", "piano tuner", "plumber",
    "postal clerk", "potter", "printer", "railway guard", "roofer", "saddler", "sailmaker",
    "schoolteacher", "shepherd", "shipping clerk", "stonemason", "surveyor", "tailor",
    "translator", "violin maker", "watchman", "weaver",
)  # fmt: skip

# None begins with a vowel sound, so that "a" fits before each.
FILLERS = {
    "colour": (
        "black", "blue", "bronze", "brown", "copper", "cream", "crimson", "dark green", "golden",
        "grey", "lilac", "mustard", "pale yellow", "peach", "pink", "purple", "red", "rust",
        "silver", "turquoise", "violet", "white",
    ),
    "material": (
        "beech", "birch wood", "brass", "brick", "bronze", "cast iron", "cedar", "chestnut",
        "copper", "granite", "larch", "limestone", "marble", "oak", "pine", "red clay",
        "sandstone", "slate", "spruce", "steel", "tin", "walnut", "willow", "zinc",
    ),
    "cloth": (
        "canvas", "cotton", "felt", "flannel", "hemp", "jute", "lambswool", "linen", "muslin",
        "sailcloth", "silk", "tweed", "velvet", "wool",
    ),
    "food": (
        "apple cake", "barley soup", "bean stew", "buttered toast", "cheese", "cherry jam",
        "chestnut bread", "dried pears", "fish pie", "ginger biscuits", "goat cheese",
        "honey rolls", "lentil soup", "mushroom pie", "onion tart", "pickled beetroot", "plum cake",
        "pumpkin soup", "rye bread", "smoked trout", "spiced nuts", "walnut bread",
    ),
    "tool": (
        "balance", "barometer", "brush", "chisel", "compass", "crank", "file", "hammer",
        "hand drill", "handcart", "hoist", "knife", "ladder", "lamp", "lathe", "magnifying glass",
        "plane", "pulley", "pump", "ruler", "saw", "sieve", "spade", "spanner", "stopwatch",
        "telescope", "trowel", "vice", "whistle", "winch",
    ),
    "weather": (
        "a cold fog", "a dry east wind", "a long frost", "a sudden hailstorm", "a warm drizzle",
        "bright sunshine", "constant rain", "heavy cloud", "high wind", "light snow", "low mist",
        "sleet", "steady rain", "still, hot air", "the first snow", "thick haze",
    ),
    "mood": (
        "amused", "calm", "careful", "cheerful", "curious", "doubtful", "grateful", "hopeful",
        "impatient", "nervous", "patient", "pleased", "proud", "puzzled", "relieved", "sceptical",
        "stubborn", "surprised", "thoughtful", "tired",
    ),
    "month": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September",
        "October", "November", "December",
    ),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "animal": (
        "badger", "crow", "dog", "donkey", "fox", "goat", "goose", "grey cat", "hare", "hedgehog",
        "heron", "horse", "jackdaw", "magpie", "mule", "rabbit", "robin", "squirrel", "stoat",
        "swallow",
    ),
    "relative": (
        "brother", "cousin", "daughter", "father", "godfather", "grandfather", "grandmother",
        "mother", "neighbour", "nephew", "niece", "sister", "son", "stepbrother",
    ),
}  # fmt: skip

# Slots that are a number, with the smallest and the largest.
NUMBERS = {"n": (3, 40), "big": (110, 990), "year": (1871, 2019), "hour": (1, 11)}
