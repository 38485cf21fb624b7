"""Class names of the data sets, in the order of their own numbers."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(","))


CIFAR10 = _names("airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")

CIFAR100 = _names(
    """apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy,
    bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock,
    cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest,
    fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn_mower, leopard, lion, lizard, lobster,
    man, maple_tree, motorcycle, mountain, mouse, mushroom, oak_tree, orange, orchid, otter,
    palm_tree, pear, pickup_truck, pine_tree, plain, plate, poppy, porcupine, possum, rabbit,
    raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake,
    spider, squirrel, streetcar, sunflower, sweet_pepper, table, tank, telephone, television, tiger,
    tractor, train, trout, tulip, turtle, wardrobe, whale, willow_tree, wolf, woman, worm"""
)

ANIMAL10N = _names(
    "cat, lynx, wolf, coyote, cheetah, jaguar, chimpanzee, orangutan, hamster, guinea pig"
)

# The order of class_name.txt in the CNLW archive
MINI_IMAGENET = _names(
    """triceratops, upright piano, Gordon setter, cocktail shaker, unicycle, pipe organ,
    Alaskan malamute, prayer rug, Newfoundland dog, tobacco shop, ladybug, combination lock,
    ashcan, American robin, scoreboard, dome, iPod, slot machine, miniskirt, French bulldog,
    carton, Tibetan mastiff, pencil box, king crab, horizontal bar, spider web, electric guitar,
    meerkat, file cabinet, consomme, jellyfish, cuirass, black-footed ferret, school bus,
    miniature poodle, catamaran, snorkel, oboe, worm fence, African hunting dog, golden retriever,
    carousel, aircraft carrier, photocopier, Arctic fox, hair slide, tile roof, Ibizan hound,
    toucan, house finch, poncho, trifle, hourglass, fire screen, white wolf, street sign,
    solar dish, rock beauty, komondor, bookshop, crate, theater curtain, tank, dugong, dalmatian,
    ear of corn, missile, bolete, orange, vase, Walker hound, lion, three-toed sloth, lipstick,
    coral reef, reel, beer bottle, green mamba, frying pan, wok, goose, rhinoceros beetle, yawl,
    clog, Saluki, chime, stage, boxer, cliff, ant, cannon, harvestman, mixing bowl, nematode,
    parallel bars, garbage truck, holster, barrel, hotdog, dishrag"""
)

# Numbers 0 to 49 of WebVision and of ImageNet
WEBVISION50 = _names(
    """tench, goldfish, great white shark, tiger shark, hammerhead shark, electric ray, stingray,
    cock, hen, ostrich, brambling, goldfinch, house finch, junco, indigo bunting, American robin,
    bulbul, jay, magpie, chickadee, water ouzel, kite, bald eagle, vulture, great grey owl,
    European fire salamander, common newt, eft, spotted salamander, axolotl, bullfrog, tree frog,
    tailed frog, loggerhead turtle, leatherback turtle, mud turtle, terrapin, box turtle,
    banded gecko, common iguana, American chameleon, whiptail, agama, frilled lizard,
    alligator lizard, Gila monster, green lizard, African chameleon, Komodo dragon,
    African crocodile"""
)

# The same in ImageNet's own folders
WEBVISION50_SYNSETS = _names(
    """n01440764, n01443537, n01484850, n01491361, n01494475, n01496331, n01498041, n01514668,
    n01514859, n01518878, n01530575, n01531178, n01532829, n01534433, n01537544, n01558993,
    n01560419, n01580077, n01582220, n01592084, n01601694, n01608432, n01614925, n01616318,
    n01622779, n01629819, n01630670, n01631663, n01632458, n01632777, n01641577, n01644373,
    n01644900, n01664065, n01665541, n01667114, n01667778, n01669191, n01675722, n01677366,
    n01682714, n01685808, n01687978, n01688243, n01689811, n01692333, n01693334, n01694178,
    n01695060, n01697457"""
)

CLOTHING1M = _names(
    """T-Shirt, Shirt, Knitwear, Chiffon, Sweater, Hoodie, Windbreaker, Jacket, Down Coat, Suit,
    Shawl, Dress, Vest, Underwear"""
)
