"""The words of the tasks: sentences of the indirect object task, names, places, objects, nouns.

A sentence holds five slots. {first} and {second} are the two people, in either order; {giver} is
the one of them who acts, so that the other follows the last word. A name never opens a sentence:
it always has a space before it, and so the same token wherever it stands.
"""

# The order matters: `ioi.py` refers to templates by their index. After that split was fixed, the
# five on which SmolLM2-135M did worst (accuracy 0.65 and less) were rewritten in their places.
TEMPLATES = (
    "On Sunday morning {first} and {second} met at the {place}. Before long, {giver} handed a"
    " {object} to",
    "While {first} and {second} were waiting near the {place}, {giver} passed a {object} to",
    "It was raining, so {first} and {second} stayed inside the {place}. To pass the time, {giver}"
    " showed a {object} to",
    "In a corner of the {place}, {first} and {second} sat down at the same table. {giver} slowly"
    " pushed a {object} towards",
    "The bus dropped {first} and {second} off at the {place}. As they walked in, {giver} offered a"
    " {object} to",
    "Last summer {first} and {second} worked together at the {place}. When the season was over,"
    " {giver} mailed a {object} to",
    "My friends {first} and {second} spent the whole afternoon at the {place}, where {giver} lent a"
    " {object} to",
    "Once {first} and {second} had finished cleaning the {place}, {giver} lent a {object} to",
    "Nobody else was at the {place} when {first} and {second} arrived. Right away, {giver} tossed a"
    " {object} to",
    "Yesterday {first} and {second} ran into each other outside the {place}. With a smile, {giver}"
    " returned a {object} to",
    "The teacher took {first} and {second} to the {place}. On the way back, {giver} gladly traded a"
    " {object} with",
    "Because {first} and {second} both liked the {place}, they went there every week. One evening,"
    " {giver} bought a {object} and gave it to",
    "Our neighbors, {first} and {second}, drove to the {place}. In the car, {giver} described a"
    " {object} to",
    "After a quarrel at the {place}, {first} and {second} made peace, and {giver} sent a {object}"
    " to",
    "There was only one {object} left at the {place}, and both {first} and {second} wanted it. In"
    " the end, {giver} left it to",
    "Every winter {first} and {second} visit the {place}. This year, {giver} wants to give a"
    " {object} to",
    "Although {first} and {second} had only just met at the {place}, {giver} picked out a {object}"
    " and gave it to",
    "During the party at the {place}, {first} and {second} talked for hours. At midnight, {giver}"
    " gave a {object} to",
    "The guard asked {first} and {second} to leave the {place}. At the door, {giver} secretly"
    " slipped a {object} to",
    "As soon as {first} and {second} were back from the {place}, {giver} reached for a {object} and"
    " handed it to",
)

# Each is one token after a space for SmolLM2 and GPT-2; other tokenizers may drop a few.
NAMES = tuple(
    "Adam Alan Albert Alexander Alice Amanda Amy Andrea Andrew Angela Anna Anthony Arthur Ashley"
    " Barbara Benjamin Brian Carl Carol Catherine Charles Christina Christine Claire Clara Daniel"
    " David Dennis Diana Edward Elizabeth Ellen Emily Emma Eric Ethan Frank Fred George Greg Hannah"
    " Heather Helen Henry Howard Jack Jacob James Jane Jason Jennifer Jerry Jessica Jim Joan John"
    " Julia Julie Justin Karen Kate Kelly Kevin Larry Laura Lauren Leo Linda Lisa Lucas Lucy Luke"
    " Margaret Maria Martha Martin Mary Matthew Melissa Michael Michelle Nancy Nathan Nicholas"
    " Nicole Oliver Olivia Oscar Patrick Paul Peter Philip Rachel Ralph Rebecca Richard Robert"
    " Roger Ruth Ryan Samantha Samuel Sandra Sara Sarah Scott Sean Sharon Simon Sophia Sophie"
    " Stephen Steven Susan Teresa Thomas Tyler Victor Victoria Walter".split()
)

PLACES = tuple(
    "airport bakery barn castle church cinema clinic factory farm garden gym harbor hotel library"
    " market museum palace station theater workshop".split()
)

# They all take the article "a".
OBJECTS = tuple(
    "basket blanket book camera coin cup flower hat key lamp letter map necklace notebook pencil"
    " photo ring sandwich ticket watch".split()
)

# Arguments of functions, and words to list. Each is one token after a space for SmolLM2 and GPT-2.
NOUNS = tuple(
    "air animal apple arm army art baby ball band bank base battle beach bear bed bell bird block"
    " blood board boat body bone book border bottle box boy brain branch bread bridge brother bus"
    " card case cat cell chair child church circle city class clock cloud coal coast coffee color"
    " corn country course court cover cow crew cup day desk dinner doctor dog door dream dress"
    " earth edge egg engine evening eye face farm father field finger fire fish floor flower food"
    " foot forest friend fruit garden gas gate girl glass gold grass ground hair hall hand hat head"
    " heart hill home horse hospital hotel hour house ice island key king kitchen lake land leaf"
    " leg letter light line lion machine map market meat metal milk mind mirror money moon morning"
    " mother mountain mouth museum music name neck night nose ocean office oil page paper park"
    " party pen people phone picture pig plane plant plate queen rain ring river road rock roof"
    " room rope rose salt school sea seat ship shirt shoe shop silver sister skin sky snow song"
    " soul spring star station steel stone storm street student sugar summer sun table tail teacher"
    " tooth tower town train tree truck uncle valley village voice wall war water wheel wife wind"
    " window wine winter wood wool yard year".split()
)
