"""Streets: a road to the horizon between facades or gardens, with cars, trees, lamps and people."""

import numpy as np

from depthkit.synthetic.palette import Palette
from depthkit.synthetic.scene import Light, Path, Scene, Sky
from depthkit.synthetic.solids import BALL, BOX, CYLINDER, Assembly, Triple, turn
from depthkit.synthetic.textures import table

START, END = -20.0, 170.0
"""How far the street is built behind and before the camera [m]."""


class Street:
    """Builder of a street along z, with the road's surface at y = 0 centred on x = 0."""

    def __init__(self, rng: np.random.Generator, moving: bool) -> None:
        self.rng, self.moving = rng, moving
        self.palette = Palette(rng)
        self.assembly = Assembly()
        self.lane = rng.uniform(2.8, 3.6)
        self.half = self.lane * rng.choice([1, 1, 1, 2])
        self.pavement = rng.uniform(1.5, 4.0)
        self.density = rng.choice([0.15, 0.6, 0.95], p=[0.2, 0.35, 0.45])  # country, suburb, town
        self.parked = rng.uniform(0, 0.8)
        self.foliage = [self.palette.leaves() for _ in range(3)]
        self.bark = self.palette.wood()
        self.metal = self.palette.paint((0.1, 0.6), (0.0, 0.3))
        self.rubber = self.palette.paint((0.05, 0.15), (0.0, 0.1))
        self.glass = self.palette.paint((0.1, 0.3), (0.1, 0.4))
        self.ground()
        for side in (-1, 1):
            self.buildings(side)
            self.kerbside(side)
        self.traffic()
        self.distance()

    def put(
        self,
        shape: int,
        at: Triple,
        offset: Triple,
        size: Triple,
        material: int,
        rotation: np.ndarray | None = None,
    ) -> None:
        """Add a part at ``offset`` (x, height of its underside, z) from the object's place (x, height, z)."""
        centre = at[0] + offset[0], -at[1] - offset[1] - size[1] / 2, at[2] + offset[2]
        self.assembly.add(shape, centre, size, material, rotation)

    def ground(self) -> None:
        """Add fields to the horizon, the road, and a raised pavement on either side."""
        palette, long = self.palette, 2 * END
        self.assembly.start()
        self.put(BOX, (0, -1.02, 0), (0, 0, 0), (1200, 1, 1200), palette.grass())
        self.assembly.start()
        road = palette.asphalt(self.lane, marks=bool(self.rng.random() < 0.8))
        self.put(BOX, (0, -0.5, END / 2), (0, 0, 0), (2 * self.half, 0.5, long), road)
        self.kerb = self.rng.uniform(0.08, 0.18)
        paving = palette.tiles() if self.rng.random() < 0.7 else palette.asphalt(9.0, marks=False)
        for side in (-1, 1):
            self.assembly.start()
            place = side * (self.half + self.pavement / 2), -0.5, END / 2
            self.put(BOX, place, (0, 0, 0), (self.pavement, 0.5 + self.kerb, long), paving)

    def buildings(self, side: int) -> None:
        """Add houses of random width, height and setback, with gaps for gardens."""
        rng, palette = self.rng, self.palette
        facades = [palette.facade() for _ in range(4)] + [palette.bricks()]
        slate = palette.colour((0.15, 0.6), (0.2, 0.7), (0.0, 0.08))
        roof = palette.cells(palette.near(slate, 0.5), slate, 0.3, 0.3, 0.03, 0.5)
        tall = rng.uniform(4, 22)
        z = START + rng.uniform(0, 10)
        while z < END:
            long = rng.uniform(7, 22)
            if rng.random() < self.density:
                self.assembly.start()
                high = np.clip(tall * rng.uniform(0.6, 1.5), 3, 32)
                setback = rng.uniform(0, 0.5) if self.density > 0.9 else rng.uniform(2, 9)
                deep = rng.uniform(7, 12)
                place = side * (self.half + self.pavement + setback + deep / 2), 0, z + long / 2
                self.put(BOX, place, (0, 0, 0), (deep, high, long), int(rng.choice(facades)))
                if high < 9 and rng.random() < 0.8:  # a square prism turned on its edge makes a gable
                    self.put(
                        BOX,
                        place,
                        (0, high - deep * 0.35, 0),
                        (deep * 0.7, deep * 0.7, long + 0.5),
                        roof,
                        turn(0, 0, np.pi / 4),
                    )
                self.entrance(place, side * (deep / 2), rng.uniform(-0.3, 0.3) * long)
            elif rng.random() < 0.6:
                for _ in range(rng.integers(1, 4)):
                    away = self.half + self.pavement + rng.uniform(2.5, 9)
                    self.tree(side * away, z + rng.uniform(0, long), rng.uniform(1, 1.6))
            z += long + (0 if self.density > 0.9 and rng.random() < 0.8 else rng.uniform(1, 9))

    def entrance(self, place: Triple, front: float, along: float) -> None:
        """Add a door, and sometimes an awning, to the side of a house towards the road."""
        x = -front
        door = self.palette.paint((0.1, 0.7), (0.2, 0.8))
        self.put(BOX, place, (x, self.kerb, along), (0.12, 2.2, 1.2), door)
        if self.rng.random() < 0.3:
            self.put(BOX, place, (x, 2.7, along), (1.6, 0.12, 3.5), self.palette.cloth())

    def kerbside(self, side: int) -> None:
        """Add trees or lamps in a row, parked cars, people and small things on the pavement."""
        rng = self.rng
        edge = self.half + 0.45
        spacing, first = rng.uniform(9, 26), rng.uniform(-5, 10)
        plant = self.tree if rng.random() < 0.55 else self.lamp_post
        if rng.random() < 0.85:
            for z in np.arange(first, END * 0.7, spacing):
                plant(side * edge, z, rng.uniform(0.7, 1.1))
        for z in np.arange(rng.uniform(-6, 6), 90, 6.2):
            if rng.random() < self.parked:
                self.car(side * (self.half - 1.0), z + rng.uniform(-0.5, 0.5))
        for _ in range(rng.integers(1, 7)):
            x = side * (self.half + rng.uniform(0.6, self.pavement - 0.4))
            z = 3 + 50 * rng.random() ** 1.5
            [self.person, self.person, self.bin, self.sign, self.hedge][rng.integers(5)](x, z)

    def tree(self, x: float, z: float, scale: float) -> None:
        """Add a tree: a trunk and a few overlapping crowns."""
        rng, leaves = self.rng, int(self.rng.choice(self.foliage))
        self.assembly.start()
        trunk = scale * rng.uniform(1.8, 3.2)
        self.put(CYLINDER, (x, 0, z), (0, 0, 0), (0.28 * scale, trunk + 0.5, 0.28 * scale), self.bark)
        for i in range(rng.integers(2, 5)):
            right, back = rng.uniform(-0.6, 0.6, 2) * (i > 0)
            up = trunk + scale * (0.6 * i - rng.uniform(0.1, 0.4))
            self.put(BALL, (x, 0, z), (right * scale, up, back * scale), rng.uniform(1.5, 2.8, 3) * scale, leaves)

    def lamp_post(self, x: float, z: float, scale: float) -> None:
        """Add a lamp post: a pole with an arm over the road."""
        high = 5.5 + 2 * scale
        self.assembly.start()
        self.put(CYLINDER, (x, 0, z), (0, 0, 0), (0.16, high, 0.16), self.metal)
        self.put(BOX, (x, 0, z), (-np.sign(x) * 0.8, high, 0), (1.8, 0.08, 0.1), self.metal)
        self.put(BOX, (x, 0, z), (-np.sign(x) * 1.5, high - 0.12, 0), (0.6, 0.12, 0.2), self.metal)

    def car(self, x: float, z: float, velocity: float = 0.0) -> None:
        """Add a car or a van: a body, a cabin, four wheels."""
        rng = self.rng
        paint = self.palette.add(self.palette.colour((0.1, 1.0), (0.0, 0.95)), grain=0.06)
        self.assembly.start((0.0, 0.0, velocity))
        wide, long = rng.uniform(1.65, 1.85), rng.uniform(3.7, 4.8)
        place, van = (x, 0, z), rng.random() < 0.2
        body = rng.uniform(1.5, 2.0) if van else rng.uniform(0.5, 0.65)
        self.put(BOX, place, (0, 0.28, 0), (wide, body, long), paint)
        if not van:
            self.put(BOX, place, (0, 0.28 + body, -0.1 * long), (wide * 0.86, 0.5, long * 0.5), self.glass)
            self.put(BOX, place, (0, 0.78 + body, -0.1 * long), (wide * 0.84, 0.05, long * 0.42), paint)
        else:
            self.put(BOX, place, (0, 1.1, 0), (wide * 0.9, 0.5, long + 0.03), self.glass)
        for right in (-1, 1):
            for ahead in (-0.31, 0.31):
                at = right * (wide / 2 - 0.1), 0.22, ahead * long
                self.put(CYLINDER, place, at, (0.64, 0.22, 0.64), self.rubber, turn(0, 0, np.pi / 2))

    def person(self, x: float, z: float) -> None:
        """Add a person: legs, a torso, a head."""
        rng, palette = self.rng, self.palette
        speed = rng.uniform(-0.12, 0.12) if self.moving else 0.0
        self.assembly.start((0.0, 0.0, speed))
        high = rng.uniform(1.5, 1.9)
        trousers, coat = palette.paint((0.1, 0.6)), palette.cloth()
        for right in (-1, 1):
            self.put(CYLINDER, (x, self.kerb, z), (right * 0.1, 0, right * 0.08), (0.16, 0.48 * high, 0.16), trousers)
        self.put(BALL, (x, self.kerb, z), (0, 0.42 * high, 0), (0.46, 0.46 * high, 0.3), coat)
        skin = palette.add(palette.colour((0.35, 0.9), (0.3, 0.6), (0.03, 0.08)))
        self.put(BALL, (x, self.kerb, z), (0, 0.86 * high, 0), (0.2, 0.25, 0.2), skin)

    def bin(self, x: float, z: float) -> None:
        """Add a litter bin, a box or a bollard."""
        across = self.rng.uniform(0.2, 0.7)
        self.assembly.start()
        shape = self.rng.choice([BOX, CYLINDER])
        self.put(shape, (x, self.kerb, z), (0, 0, 0), (across, self.rng.uniform(0.6, 1.3), across), self.palette.paint())

    def sign(self, x: float, z: float) -> None:
        """Add a sign: a board on a pole."""
        self.assembly.start()
        self.put(CYLINDER, (x, 0, z), (0, 0, 0), (0.07, 2.8, 0.07), self.metal)
        board = self.palette.add(
            self.palette.colour((0.6, 1.0), (0.6, 1.0)), (0.9, 0.9, 0.9), period=(0.7, 0.7), duty=(0.5, 0.4)
        )
        self.put(BOX, (x, 0, z - 0.06), (0, 2.1, 0), (0.7, 0.7, 0.03), board)

    def hedge(self, x: float, z: float) -> None:
        """Add a clipped hedge or a low wall behind the pavement."""
        material = int(self.rng.choice(self.foliage)) if self.rng.random() < 0.6 else self.palette.bricks()
        self.assembly.start()
        place = np.sign(x) * (self.half + self.pavement - 0.2), 0, z
        self.put(BOX, place, (0, 0, 0), (0.5, self.rng.uniform(0.6, 1.6), self.rng.uniform(3, 9)), material)

    def traffic(self) -> None:
        """Add cars on the road: oncoming ones, and one that stands ahead."""
        rng = self.rng
        for _ in range(rng.integers(0, 4)):
            self.car(-self.lane / 2, rng.uniform(9, 90), -rng.uniform(0.3, 1.2) if self.moving else 0.0)
        if not self.moving and rng.random() < 0.4:
            self.car(self.lane / 2, rng.uniform(14, 60))

    def lead(self, speed: float) -> None:
        """Add a car ahead that almost keeps its distance: to a camera of the same speed it looks infinitely far."""
        self.car(self.lane / 2, self.rng.uniform(7, 25), speed * self.rng.uniform(0.95, 1.05))

    def distance(self) -> None:
        """Add hills at the horizon, and sometimes a house that closes the street."""
        rng, hill = self.rng, self.palette.leaves()
        for _ in range(rng.integers(0, 5)):
            wide, high = rng.uniform(80, 260), rng.uniform(20, 70)
            self.assembly.start()
            self.put(BALL, (rng.uniform(-300, 300), -high / 2, rng.uniform(300, 420)), (0, 0, 0), (wide, high, wide), hill)
        if rng.random() < 0.3:
            self.assembly.start()
            self.put(
                BOX,
                (rng.uniform(-8, 8), 0, END * rng.uniform(0.5, 1)),
                (0, 0, 0),
                (40, rng.uniform(6, 25), 10),
                self.palette.facade(),
            )

    def air(self) -> tuple[Light, Sky]:
        """Draw sun and sky, from clear noon to an overcast evening."""
        rng = self.rng
        up, round_about = rng.uniform(0.3, 1.25), rng.uniform(0, 2 * np.pi)
        sun = np.array([np.cos(up) * np.cos(round_about), -np.sin(up), np.cos(up) * np.sin(round_about)])
        overcast = rng.random() ** 3
        warm = np.array([1.0, 0.75 + 0.2 * np.sin(up), 0.5 + 0.4 * np.sin(up)])
        blue = np.array(self.palette.colour((0.55, 0.95), (0.3, 0.75), (0.55, 0.62)))
        zenith = blue + (np.array([0.55, 0.57, 0.6]) - blue) * overcast
        horizon = np.array([0.75, 0.8, 0.85]) * rng.uniform(0.7, 1.1) * warm**0.3
        light = Light(sun, True, 2.2 * (1 - 0.8 * overcast) * warm, 1.0, 0.15 + 0.4 * zenith, 0.06 + 0.12 * zenith)
        return light, Sky(horizon, zenith, rng.uniform(0.0, 0.65), (rng.uniform(0, 9), rng.uniform(0, 9)))


def build_street(rng: np.random.Generator, *, moving: bool, still: bool, noise: float) -> Scene:
    """Build a street and a camera that drives along it, walks beside it, or flies low above it."""
    street = Street(rng, moving)
    light, sky = street.air()
    manner = rng.choice(3, p=[0.6, 0.28, 0.12])
    if manner == 0:
        position = np.array([street.lane / 2 + rng.uniform(-0.4, 0.4), -rng.uniform(1.2, 2.2), 0.0])
        angles = np.array([rng.normal(0, 0.06), rng.uniform(-0.04, 0.08), rng.normal(0, 0.008)])
        speed = rng.uniform(0.35, 1.0)
    elif manner == 1:
        side = rng.choice([-1, 1])
        position = np.array([side * (street.half + street.pavement * 0.5), -rng.uniform(1.4, 1.9) - street.kerb, 0.0])
        angles = np.array([-side * rng.uniform(-0.1, 0.9), rng.uniform(-0.06, 0.12), rng.normal(0, 0.02)])
        speed = rng.uniform(0.1, 0.3)
    else:
        position = np.array([rng.uniform(-2, 2), -rng.uniform(3, 7), 0.0])
        angles = np.array([rng.normal(0, 0.25), rng.uniform(0.1, 0.35), rng.normal(0, 0.02)])
        speed = rng.uniform(0.2, 0.8)
    if moving:
        street.lead(speed)
    solids = street.assembly.solids()
    for _ in range(20):
        if solids.clearance(position) > 0.6:
            break
        position[2] += 1.1
    moves = float(not still)
    path = Path(
        position=position,
        velocity=np.array([0.0, 0.0, speed]) * moves,
        sway=rng.uniform(-1, 1, 3) * [0.3, 0.05, 0.0] * moves,
        angles=angles,
        nod=rng.uniform(-1, 1, 3) * [0.05, 0.015, 0.01] * moves,
        rate=0.2,
        phase=rng.uniform(-0.5, 0.5, 2),
    )
    return Scene(
        kind="street",
        solids=solids,
        materials=table(street.palette.materials),
        light=light,
        sky=sky,
        haze=1 / rng.choice([60.0, 150.0, 300.0, 1000.0], p=[0.1, 0.25, 0.35, 0.3]),
        path=path,
        baseline=0.5,
        focal_length=0.5 / np.tan(rng.uniform(0.42, 0.7)),
        principal_point=(rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015)),
        exposure=rng.uniform(1.2, 2.2) * rng.uniform(0.94, 1.06, 3),
        noise=noise * rng.random(),
    )
