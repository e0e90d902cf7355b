"""What happens to the work: latencies always, and the faults of work that the simulation has."""

from leadline.core.model import SECOND
from leadline_protocol.ids import JobId, LeadId
from tests.simulation.faults import Fault, dice
from tests.world.behaviours import number_of


class Fate:
    """Dice for attempts; each fault has its own."""

    def __init__(self, seed: int, faults: frozenset[Fault]) -> None:
        self.quiet = False
        """No faults any more."""
        self.struck = dict.fromkeys(
            (Fault.STUCK_LEAD, Fault.WORKER_LOST, Fault.DEADLY_JOB, Fault.LINGER, Fault.SLOW_NETWORK), 0
        )
        self._seed = seed
        self._faults = faults
        self._dice = dice(seed, "work")
        self._fault_dice = {fault: dice(seed, fault) for fault in Fault}

    def is_stuck(self, job: JobId, lead: LeadId, times: int) -> bool:
        """Whether the work hangs on this lead, which it has done so many times before: one to three times in all."""
        if self.quiet or Fault.STUCK_LEAD not in self._faults:
            return False
        number = number_of("stuck", self._seed, job, lead)
        return number % 400 == 0 and times < 1 + number // 400 % 3 and self._strike(Fault.STUCK_LEAD)

    def is_deadly(self, job: JobId) -> bool:
        """Whether the daemon does not survive the job."""
        if self.quiet or Fault.DEADLY_JOB not in self._faults:
            return False
        return number_of("deadly", self._seed, job) % 80 == 0 and self._strike(Fault.DEADLY_JOB)

    def falls_silent(self) -> bool:
        return self._strikes(Fault.WORKER_LOST, 0.0005)

    def lingers(self) -> int:
        """How long a stopped attempt takes to be gone."""
        if self._strikes(Fault.LINGER, 0.3):
            return self._fault_dice[Fault.LINGER].randint(1, 4 * SECOND)
        return self._dice.randint(1, 20_000)

    def jitter(self) -> float:
        return self._dice.random()

    def latency(self) -> int:
        """Between two things within the daemon."""
        return self._dice.randint(100, 5_000)

    def connects(self) -> int:
        """From a permit to the first byte: at once where a connection is open, sometimes later than permits last."""
        if self._dice.random() < 0.8:
            return self.latency()
        if self._strikes(Fault.SLOW_NETWORK, 0.05):
            return self._fault_dice[Fault.SLOW_NETWORK].randint(SECOND, 7 * SECOND)
        return self._dice.randint(20_000, 300_000)

    def network(self) -> int:
        """One way to a provider, or back."""
        if self._strikes(Fault.SLOW_NETWORK, 0.02):
            return self._fault_dice[Fault.SLOW_NETWORK].randint(SECOND, 49 * SECOND // 10)
        return self._dice.randint(10_000, 150_000)

    def _strikes(self, fault: Fault, chance: float) -> bool:
        if self.quiet or fault not in self._faults:
            return False
        return self._fault_dice[fault].random() < chance and self._strike(fault)

    def _strike(self, fault: Fault) -> bool:
        self.struck[fault] += 1
        return True
