"""What the requests of the task `instructions` are about, and the texts they ask for.

The training topics and the held-out ones are disjoint, and so are their words. The words of a topic are those that a
text about it may or may not have by itself: the keywords of the instructions.
"""

__all__ = ["HELD_OUT", "REQUESTS", "TRAINING"]

REQUESTS = (
    "Write a short note to a friend about {}.",
    "Write a short text about {}.",
    "Write an advertisement for {}.",
    "Write a message to a neighbour about {}.",
    "Write a diary entry about {}.",
    "Write a short speech about {}.",
    "Give me some advice about {}.",
    "Give a beginner some tips about {}.",
    "Tell me what I should know about {}.",
    "Tell a short story about {}.",
    "Explain to a child what is special about {}.",
    "Describe {} to somebody who has never seen it.",
)
"""With a place for the topic."""

TRAINING = {
    "a rainy day": ("umbrella", "puddle", "window", "grey"),
    "a morning walk": ("sunrise", "shoes", "fresh", "path"),
    "a vegetable garden": ("tomatoes", "soil", "seeds", "water"),
    "a long train journey": ("station", "ticket", "seat", "landscape"),
    "a mountain hike": ("boots", "summit", "trail", "view"),
    "a birthday party": ("cake", "balloons", "guests", "candles"),
    "a lost cat": ("collar", "street", "reward", "kitten"),
    "a new bicycle": ("helmet", "wheels", "brakes", "ride"),
    "a quiet library": ("shelves", "silence", "novel", "whisper"),
    "a busy market": ("stalls", "prices", "crowd", "spices"),
    "a day at the beach": ("sand", "waves", "towel", "sunscreen"),
    "a home office": ("desk", "lamp", "focus", "chair"),
    "a school play": ("stage", "costume", "applause", "rehearsal"),
    "a small bakery": ("bread", "oven", "flour", "counter"),
    "a camping trip": ("tent", "campfire", "lantern", "forest"),
    "a bowl of soup": ("spoon", "broth", "warm", "onion"),
    "a chess game": ("king", "opening", "board", "patience"),
    "a winter storm": ("snow", "wind", "blanket", "roads"),
    "a music festival": ("concert", "drums", "tickets", "dancing"),
    "a first day at work": ("colleagues", "nervous", "lunch", "office"),
    "a flower shop": ("roses", "bouquet", "vase", "petals"),
    "a football match": ("goal", "referee", "team", "stadium"),
    "a city park": ("bench", "trees", "pond", "squirrels"),
    "a cup of coffee": ("beans", "aroma", "mug", "bitter"),
    "a family dinner": ("table", "recipe", "laughter", "dessert"),
    "an old photograph": ("memory", "frame", "album", "grandmother"),
    "a dog in the snow": ("paws", "tail", "fetch", "leash"),
    "a swimming lesson": ("pool", "breath", "teacher", "goggles"),
    "a night at the theatre": ("curtain", "actors", "audience", "drama"),
    "a trip to the zoo": ("elephants", "cages", "keeper", "monkeys"),
    "a job interview": ("questions", "handshake", "experience", "suit"),
    "a broken phone": ("screen", "repair", "battery", "backup"),
    "a house by the river": ("boat", "bridge", "current", "porch"),
    "a painting class": ("brush", "canvas", "colours", "easel"),
    "a wedding in summer": ("dress", "rings", "bride", "garden"),
    "a visit to the dentist": ("teeth", "toothbrush", "appointment", "smile"),
    "an apple orchard": ("basket", "harvest", "cider", "branches"),
    "a power cut": ("candle", "darkness", "electricity", "torch"),
    "a used car": ("engine", "mileage", "tyres", "price"),
    "a good night's sleep": ("pillow", "dreams", "bedtime", "rest"),
    "a street musician": ("guitar", "coins", "melody", "corner"),
    "a healthy breakfast": ("oats", "fruit", "yoghurt", "energy"),
    "a moving day": ("boxes", "furniture", "van", "keys"),
    "a fishing trip": ("bait", "lake", "rod", "catch"),
    "a science fair": ("experiment", "volcano", "judges", "poster"),
    "a spring cleaning": ("dust", "broom", "sponge", "windows"),
    "a snowman": ("carrot", "scarf", "buttons", "frost"),
    "a new neighbour": ("welcome", "fence", "doorbell", "introduce"),
}
"""Topic -> its words."""

HELD_OUT = {
    "a desert island": ("coconut", "palm", "rescue", "shore"),
    "a thunderstorm at night": ("lightning", "roof", "flash", "rumble"),
    "a farm in autumn": ("tractor", "barn", "pumpkins", "chickens"),
    "a public swimming bath": ("lifeguard", "locker", "splash", "lanes"),
    "a yoga class": ("mat", "stretch", "balance", "breathing"),
    "a museum of history": ("statue", "guide", "ancient", "exhibition"),
    "a homemade pizza": ("cheese", "dough", "basil", "slice"),
    "a long flight": ("airport", "pilot", "clouds", "passport"),
    "a puppet show": ("strings", "wooden", "children", "voices"),
    "a stray dog": ("shelter", "adopt", "hungry", "bark"),
    "a city marathon": ("runners", "finish", "medal", "sweat"),
    "a night under the stars": ("telescope", "moon", "planets", "sky"),
    "a second-hand bookshop": ("pages", "covers", "bargain", "author"),
    "a tea ceremony": ("leaves", "teapot", "ritual", "porcelain"),
    "a hot air balloon": ("burner", "altitude", "flight", "horizon"),
    "a lemonade stand": ("lemons", "sugar", "pitcher", "customers"),
}
"""Topic -> its words; only prompts of evaluations are about them."""
