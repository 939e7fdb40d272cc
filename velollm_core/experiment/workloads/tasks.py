"""What is asked about the texts. The slots are those of ``scenes``."""

from __future__ import annotations

# Answers run to three sentences or more, so that the bound on their length ends most of them.
SHORT = (
    "Describe in four sentences what one sees, hears and smells in this place.",
    "What would you ask {first} first? Give three questions and say why each matters.",
    "Which detail here is the least likely? Explain your answer in three sentences.",
    "Say in three or four sentences what {other} thinks of {first}, and why.",
    "What should {first} buy before {month}? Name three things and a reason for each.",
    "Is this a good place for a {other_job}? Give two reasons for it and two against it.",
    "Write the first verse of a song about {town}, four lines long.",
    "Tell what happened on the next day, in four sentences.",
    "Describe {first} to somebody who has never been to {town}, in four sentences.",
    "What does {town} need most? Answer in four sentences.",
    "Explain in a few sentences why {first} stays in {town}.",
    "Name three questions that this leaves open, and guess an answer to each.",
)

MEDIUM = (
    "Continue this as a story of about 150 words.",
    "Write a letter of about 150 words from {first} to {other} that explains what happened.",
    "Write a short newspaper report about it, with a headline and three paragraphs.",
    "Describe a day in the life of {first}, from early morning to night, in about 150 words.",
    "Give {first} five pieces of practical advice, each with a reason.",
    "Write a conversation between {first} and {other} about it, with at least eight lines.",
    "Explain to a child of ten how a {other_job} works and why {town} needs one.",
    "Write a speech of about 150 words that {first} could give in {town}.",
    "Describe the place as a painter would see it on a {weekday} in {month}.",
    "Make a plan for the next four weeks, week by week, and say what could go wrong.",
    "Write down what {other} remembers of this ten years later, in about 150 words.",
    "List the advantages and the drawbacks of life in {town} and come to a conclusion.",
)

SUMMARIZE = (
    "Summarize the text above in two sentences.",
    "What is the text above about? Answer in two or three sentences.",
    "Give the main points of the text above in at most 45 words.",
    "Summarize the text above for somebody who has never been to {town}, in two sentences.",
)

# Stands before the text: small models then copy, where after it they go on with something else.
REWRITE = "Rewrite this text about {name}: write {new} instead of {old}, changing one word."

FOLLOW_UPS = (
    "What does that mean for {first}?",
    "I had not heard of that. What would {other} say to it?",
    "How would you tell this to a {other_job}?",
    "Is there anything in it that should worry {first}?",
    "Which of these things happened first, do you think?",
    "Please say more about the last point.",
    "What would change if it happened in {month}?",
    "Who in {town} should know about it?",
)

REPLIES = (
    "There is more to it.",
    "That is hard to say for certain.",
    "From what people in {town} tell, this much is clear.",
    "Two things come to mind.",
    "{other} would see it differently.",
    "The short answer is yes.",
)

# What a list holds, its keys with text, and its keys with numbers.
RECORDS = (
    ("deliveries", ("sender", "carrier", "street"), ("weight_kg", "cost_pence", "days")),
    ("repairs", ("customer", "part", "workshop"), ("minutes", "price", "visits")),
    ("letters", ("author", "language", "shelf"), ("pages", "year", "stamps")),
    ("harvests", ("field", "fruit", "picker"), ("baskets", "litres", "week")),
    ("journeys", ("driver", "line", "stop"), ("passengers", "delay_s", "distance_m")),
    ("recipes", ("title", "origin", "season"), ("steps", "servings", "minutes")),
    ("sightings", ("observer", "object", "weather"), ("altitude_deg", "hour", "magnitude")),
    ("loans", ("reader", "book", "branch"), ("days", "renewals", "fine_pence")),
    ("concerts", ("hall", "conductor", "composer"), ("seats", "tickets", "encores")),
    ("readings", ("sensor", "room", "unit"), ("celsius", "humidity", "minute")),
)

# The start of a function's name, and what the function does.
OPERATIONS = (
    ("count", "returns a dictionary from each `{key}` to its number of {records}"),
    ("total", "returns a dictionary from each `{key}` to the sum of `{value}`, largest sum first"),
    ("rank", "returns the {n} {records} with the highest `{value}`, ties broken by `{key}`"),
    ("split", "returns two lists: the {records} with `{value}` below {big}, and the others"),
    ("merge", "joins neighbouring {records} with the same `{key}` and adds up their `{value}`"),
    ("median", "returns the median of `{value}` for each `{key}` that occurs at least {n} times"),
    ("format", "returns a text with one line for each of the {records}, `{key}` before `{value}`"),
    ("window", "returns the moving average of `{value}` over {n} {records} at a time"),
    ("outlying", "returns the {records} whose `{value}` is {n} percent above the mean of all"),
    ("parse", "reads {records} from lines such as `{key};{value}` and skips lines that do not fit"),
)

CONSTRAINTS = (
    "Add type hints and a docstring.",
    "Raise ValueError if the list is empty.",
    "Leave out entries where `{value}` is None.",
    "Use the standard library only.",
    "Compare `{key}` without regard to case.",
    "Do not change the list that is passed in.",
    "Add an example call with {n} entries below the function.",
    "Use no loop inside another loop.",
)
