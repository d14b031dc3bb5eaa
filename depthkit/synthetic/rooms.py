"""Rooms: a box with furniture on its floor and pictures on its walls."""

import numpy as np

from depthkit.synthetic.palette import Palette
from depthkit.synthetic.scene import Light, Path, Scene
from depthkit.synthetic.solids import BALL, BOX, CYLINDER, ROOM, Assembly, Triple, turn
from depthkit.synthetic.textures import table

Place = tuple[float, float]
"""x and z on the floor [m]."""


class Room:
    """A room being furnished, its floor at y = 0 centred on the origin."""

    def __init__(self, rng: np.random.Generator, moving: bool) -> None:
        self.rng, self.moving = rng, moving
        self.palette = Palette(rng)
        self.assembly = Assembly()
        self.wide, self.deep, self.high = rng.uniform(3.2, 8.5), rng.uniform(3.5, 9.5), rng.uniform(2.3, 3.6)
        self.taken: list[tuple[float, float, float]] = []  # x, z, radius
        self.shell()
        self.furnish()
        self.decorate()

    def put(self, shape: int, at: Place | np.ndarray, offset: Triple, size: Triple, material: int, yaw: float = 0.0) -> None:
        """Add a part at ``offset`` (right, up from the floor to its underside, back) from the object's place."""
        right, up, back = offset
        rotation = turn(yaw)
        centre = np.array([at[0], -up - size[1] / 2, at[1]]) + rotation @ [right, 0, back]
        self.assembly.add(shape, centre, size, material, rotation)

    def shell(self) -> None:
        """Add floor, walls and ceiling, and sometimes a projecting corner or a column."""
        rng, palette = self.rng, self.palette
        floor = [palette.planks, palette.tiles, palette.carpet][rng.integers(3)]()
        walls = [
            palette.wallpaper() if rng.random() < 0.75 else [palette.bricks, palette.tiles, palette.planks][rng.integers(3)]()
        ]
        walls += [palette.wallpaper() if rng.random() < 0.4 else walls[0] for _ in range(3)]
        ceiling = palette.paint((0.8, 0.98), (0.0, 0.12))
        faces = walls[0], walls[1], ceiling, floor, walls[2], walls[3]
        self.assembly.start()
        self.assembly.add(ROOM, (0, -self.high / 2, 0), (self.wide, self.high, self.deep), faces)
        if rng.random() < 0.35:
            x, z = rng.uniform(0.6, 0.35 * self.wide), rng.uniform(0.6, 0.35 * self.deep)
            corner = rng.choice([-1, 1]) * (self.wide - x) / 2, rng.choice([-1, 1]) * (self.deep - z) / 2
            self.assembly.start()
            self.put(BOX, corner, (0, 0, 0), (x, self.high, z), walls[0])
            self.taken.append((*corner, max(x, z) / 1.6))
        if rng.random() < 0.2 and (place := self.free(0.3)):
            self.assembly.start()
            self.put(rng.choice([BOX, CYLINDER]), place, (0, 0, 0), (0.35, self.high, 0.35), walls[0])

    def free(self, radius: float, wall: int | None = None) -> Place | None:
        """Find a free place on the floor; against the left, right, front or back wall if asked."""
        half = np.array([self.wide / 2 - radius, self.deep / 2 - radius])
        for _ in range(12):
            x, z = self.rng.uniform(-half, half)
            if wall is not None:
                x, z = [(-half[0], z), (half[0], z), (x, -half[1]), (x, half[1])][wall]
            if all(np.hypot(x - a, z - b) > radius + r for a, b, r in self.taken):
                self.taken.append((x, z, radius))
                return float(x), float(z)
        return None

    def furnish(self) -> None:
        """Add furniture to the floor, large pieces first."""
        rng = self.rng
        large = [(self.bed, 1.1), (self.sofa, 1.0), (self.shelf, 0.55), (self.desk, 0.75), (self.shelf, 0.55)]
        small = [self.table, self.crate, self.ball, self.plant, self.lamp, self.stool, self.drum, self.crate, self.ball]
        for i in rng.permutation(len(large))[: rng.integers(1, 5)]:
            build, radius = large[i]
            wall = int(rng.integers(4))
            if place := self.free(radius, wall):
                self.assembly.start()
                build(place, [-np.pi / 2, np.pi / 2, np.pi, 0.0][wall], radius)
        for build in rng.choice(np.array(small, object), rng.integers(3, 10)):
            radius = 0.6 if build == self.table else 0.35
            if place := self.free(radius):
                speed = rng.uniform(0.01, 0.05) if self.moving and build in (self.ball, self.crate) else 0.0
                heading = rng.uniform(0, 2 * np.pi)
                self.assembly.start((speed * np.cos(heading), 0.0, speed * np.sin(heading)))
                build(place, rng.uniform(0, 2 * np.pi), radius)

    def bed(self, at: Place, yaw: float, radius: float) -> None:
        """Add a bed: a mattress on a frame, a headboard towards the wall, a pillow."""
        wood, sheet, wide = self.palette.wood(), self.palette.cloth(), self.rng.uniform(1.0, 1.5)
        self.put(BOX, at, (0, 0, 0), (wide, 0.3, 1.9), wood, yaw)
        self.put(BOX, at, (0, 0.3, 0), (wide - 0.04, 0.18, 1.86), sheet, yaw)
        self.put(BOX, at, (0, 0, 0.98), (wide, 0.9, 0.06), wood, yaw)
        self.put(BALL, at, (0, 0.42, 0.7), (wide * 0.6, 0.2, 0.4), self.palette.paint((0.7, 1.0), (0.0, 0.3)), yaw)

    def sofa(self, at: Place, yaw: float, radius: float) -> None:
        """Add a sofa: a seat, a back towards the wall, two arms, a cushion."""
        cloth, wide = self.palette.cloth(), self.rng.uniform(1.2, 1.8)
        self.put(BOX, at, (0, 0, 0.45), (wide, 0.42, 0.8), cloth, yaw)
        self.put(BOX, at, (0, 0.42, 0.75), (wide, 0.45, 0.22), cloth, yaw)
        for side in (-1, 1):
            self.put(BOX, at, (side * (wide / 2 + 0.08), 0, 0.45), (0.16, 0.6, 0.82), cloth, yaw)
        self.put(BOX, at, (self.rng.uniform(-0.3, 0.3), 0.43, 0.52), (0.4, 0.35, 0.14), self.palette.cloth(), yaw + 0.2)

    def shelf(self, at: Place, yaw: float, radius: float) -> None:
        """Add a cupboard, or a shelf with books, and something on top."""
        wood, high, wide = self.palette.wood(), self.rng.uniform(0.8, min(2.1, self.high - 0.2)), self.rng.uniform(0.7, 1.0)
        if self.rng.random() < 0.4:  # a cupboard
            self.put(BOX, at, (0, 0, 0.3), (wide, high, 0.5), wood, yaw)
        else:
            for side in (-1, 1):
                self.put(BOX, at, (side * wide / 2, 0, 0.35), (0.04, high, 0.35), wood, yaw)
            for up in np.arange(0.05, high, 0.4):
                self.put(BOX, at, (0, up, 0.35), (wide, 0.03, 0.35), wood, yaw)
                filled = self.rng.uniform(0.3, 0.9) * wide
                size = (filled, self.rng.uniform(0.18, 0.3), 0.24)
                self.put(BOX, at, ((filled - wide) / 2 + 0.02, up + 0.03, 0.35), size, self.books(), yaw)
        self.put(self.rng.choice([BALL, CYLINDER, BOX]), at, (0, high, 0.3), (0.2, 0.3, 0.2), self.palette.paint(), yaw)

    def books(self) -> int:
        """Add the spines of books: narrow stripes, each with its own brightness."""
        first, second = self.palette.colour((0.2, 0.9), (0.2, 0.8)), self.palette.colour((0.1, 0.5), (0.0, 0.5))
        width = self.rng.uniform(0.04, 0.08)
        return self.palette.add(second, first, period=(width, 1.0), duty=(0.85, 1.0), variation=0.7)

    def desk(self, at: Place, yaw: float, radius: float) -> None:
        """Add a desk with a screen."""
        self.table(at, yaw, radius)
        self.put(BOX, at, (0, 0.76, 0.2), (0.55, 0.36, 0.04), self.palette.paint((0.05, 0.2), (0.0, 0.3)), yaw)

    def table(self, at: Place, yaw: float, radius: float) -> None:
        """Add a table: a round or square top on legs, with things on it."""
        wood, wide, deep = self.palette.wood(), self.rng.uniform(0.7, 1.3) * radius / 0.75, 0.9 * radius
        round_one = self.rng.random() < 0.3
        self.put(CYLINDER if round_one else BOX, at, (0, 0.72, 0), (wide, 0.04, deep), wood, yaw)
        if round_one:
            self.put(CYLINDER, at, (0, 0, 0), (0.1, 0.72, 0.1), wood, yaw)
        else:
            for right in (-1, 1):
                for back in (-1, 1):
                    self.put(BOX, at, (right * (wide / 2 - 0.05), 0, back * (deep / 2 - 0.05)), (0.06, 0.72, 0.06), wood, yaw)
        for _ in range(self.rng.integers(0, 4)):
            size = self.rng.uniform(0.07, 0.25, 3)
            offset = self.rng.uniform(-0.3, 0.3) * wide, 0.76, self.rng.uniform(-0.3, 0.3) * deep
            self.put(self.rng.choice([BOX, BALL, CYLINDER]), at, offset, size, self.palette.paint(), yaw)

    def crate(self, at: Place, yaw: float, radius: float) -> None:
        """Add one to three boxes stacked on each other."""
        up = 0.0
        for _ in range(self.rng.integers(1, 4)):
            size = self.rng.uniform(0.25, 0.5, 3)
            material = [self.palette.wood, self.palette.paint, self.palette.cloth][self.rng.integers(3)]()
            self.put(BOX, at, (0, up, 0), size, material, yaw + self.rng.uniform(-0.4, 0.4))
            up += size[1]

    def ball(self, at: Place, yaw: float, radius: float) -> None:
        """Add a ball."""
        across = self.rng.uniform(0.2, 0.68)
        self.put(BALL, at, (0, 0, 0), (across,) * 3, self.palette.cloth(), yaw)

    def plant(self, at: Place, yaw: float, radius: float) -> None:
        """Add a plant: a pot, a stem, some foliage."""
        leaves, high = self.palette.leaves(), self.rng.uniform(0.2, 0.9)
        self.put(CYLINDER, at, (0, 0, 0), (0.32, 0.3, 0.32), self.palette.paint(), yaw)
        self.put(CYLINDER, at, (0, 0.3, 0), (0.05, high, 0.05), self.palette.wood(), yaw)
        for _ in range(3):
            right, back = self.rng.uniform(-0.14, 0.14, 2)
            self.put(BALL, at, (right, 0.2 + high * self.rng.uniform(0.6, 1), back), self.rng.uniform(0.3, 0.5, 3), leaves, yaw)

    def lamp(self, at: Place, yaw: float, radius: float) -> None:
        """Add a floor lamp: a shade on a pole."""
        high = self.rng.uniform(1.1, 1.7)
        metal = self.palette.paint((0.1, 0.9), (0.0, 0.3))
        self.put(CYLINDER, at, (0, 0, 0), (0.3, 0.03, 0.3), metal)
        self.put(CYLINDER, at, (0, 0, 0), (0.035, high, 0.035), metal)
        self.put(
            CYLINDER, at, (0, high, 0), (0.36, 0.3, 0.36), self.palette.glow((0.9, 0.75, 0.5), self.rng.choice([0.0, 1.2]))
        )

    def stool(self, at: Place, yaw: float, radius: float) -> None:
        """Add a seat on four legs, often with a back."""
        wood, seat = self.palette.wood(), self.palette.cloth()
        for right in (-1, 1):
            for back in (-1, 1):
                self.put(BOX, at, (right * 0.18, 0, back * 0.18), (0.04, 0.44, 0.04), wood, yaw)
        self.put(BOX, at, (0, 0.44, 0), (0.44, 0.05, 0.44), seat, yaw)
        if self.rng.random() < 0.7:
            self.put(BOX, at, (0, 0.49, 0.2), (0.44, 0.5, 0.04), wood, yaw)

    def drum(self, at: Place, yaw: float, radius: float) -> None:
        """Add an upright cylinder."""
        across = self.rng.uniform(0.25, 0.65)
        self.put(CYLINDER, at, (0, 0, 0), (across, self.rng.uniform(0.25, 0.9), across), self.palette.cloth(), yaw)

    def decorate(self) -> None:
        """Add pictures, windows, doors and a rug: thin boxes on walls and floor."""
        rng = self.rng
        for wall in range(4):
            for along in rng.permutation([-0.3, 0.0, 0.3])[: rng.integers(0, 3)]:
                size, up, material = self.hanging()
                inward = 0.02
                half = (self.wide if wall < 2 else self.deep) / 2 - inward
                across = along * (self.deep if wall < 2 else self.wide)
                sign = -1 if wall % 2 == 0 else 1
                place = (sign * half, across) if wall < 2 else (across, sign * half)
                extents = (0.04, size[1], size[0]) if wall < 2 else (size[0], size[1], 0.04)
                self.assembly.start()
                self.put(BOX, place, (0, up, 0), extents, material)
        if rng.random() < 0.5:
            self.assembly.start()
            self.put(
                BOX,
                rng.uniform(-0.5, 0.5, 2),
                (0, 0, 0),
                (*rng.uniform(1.2, 2.4, 1), 0.012, 1.4),
                self.palette.cloth(),
                rng.uniform(0, 3),
            )

    def hanging(self) -> tuple[tuple[float, float], float, int]:
        """Draw extents, height above the floor and material of something on a wall."""
        rng = self.rng
        kind = rng.integers(5)
        if kind == 0:
            return (0.9, 2.0), 0.0, self.palette.wood()
        if kind == 1:
            return (rng.uniform(0.7, 1.6), 1.1), 0.9, self.palette.window()
        return (rng.uniform(0.4, 1.1), rng.uniform(0.4, 0.8)), rng.uniform(1.2, 1.4), self.palette.picture()

    def light(self) -> Light:
        """Draw a lamp under the ceiling, white to warm."""
        rng = self.rng
        place = np.array(
            [rng.uniform(-0.35, 0.35) * self.wide, -self.high + rng.uniform(0.05, 0.4), rng.uniform(-0.35, 0.35) * self.deep]
        )
        tint = np.array([1.0, rng.uniform(0.8, 1.0), rng.uniform(0.55, 1.0)])
        around = rng.uniform(0.2, 0.7)
        warm = tint**0.5 * around
        return Light(place, False, rng.uniform(0.9, 1.8) * tint, rng.uniform(2.5, 5), warm * 0.9, warm * rng.uniform(0.6, 1.0))


def build_room(rng: np.random.Generator, *, moving: bool, still: bool, noise: float) -> Scene:
    """Build a furnished room and a camera that walks a little way in it."""
    room = Room(rng, moving)
    solids = room.assembly.solids()
    position, room_left = np.array([0.0, -room.high / 2, 0.0]), 0.0
    for _ in range(12):
        across = rng.choice([-1, 1], 2) * rng.uniform(0.2, 0.46, 2) * [room.wide, room.deep]
        candidate = np.array([across[0], -rng.uniform(0.9, min(1.9, room.high - 0.4)), across[1]])
        if (clear := solids.clearance(candidate)) > room_left:
            position, room_left = candidate, clear
        if clear > 0.4:
            break
    target = -position * rng.uniform(0.0, 0.8) + rng.uniform(-0.8, 0.8, 3)
    yaw = np.arctan2(target[0] - position[0], target[2] - position[2])
    angles = np.array([yaw, rng.uniform(-0.08, 0.38), rng.normal(0, 0.02)])
    phase = rng.uniform(-0.5, 0.5, 2)
    step = min(rng.uniform(0.03, 0.1), 0.1 * room_left) / 0.2
    heading = rng.uniform(0, 2 * np.pi)
    sway = step * np.array([np.cos(heading), rng.uniform(-0.2, 0.2), np.sin(heading)])
    nod = rng.uniform(-1, 1, 3) * [0.1, 0.04, 0.02]
    path = Path(position, np.zeros(3), sway * (not still), angles, nod * (not still), 0.2, phase)
    return Scene(
        kind="room",
        solids=solids,
        materials=table(room.palette.materials),
        light=room.light(),
        sky=None,
        haze=0.0,
        path=path,
        baseline=0.1,
        focal_length=0.5 / np.tan(rng.uniform(0.48, 0.72)),
        principal_point=(rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015)),
        exposure=rng.uniform(1.2, 2.6) * rng.uniform(0.92, 1.08, 3),
        noise=noise * rng.random(),
    )
