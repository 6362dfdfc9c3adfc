import JobModel

@testable import SchedulerCore

/// Virtual time: steps happen in the order of their times, and the clock jumps from one to the next.
final class Agenda {
    private(set) var now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
    private var queue = DeadlineQueue<Int>()
    private var steps: [Int: () -> Void] = [:]
    private var count = 0

    func at(_ due: Timestamp, _ step: @escaping () -> Void) {
        count += 1
        steps[count] = step
        queue.insert(count, at: max(due, now))
    }

    func after(_ delay: Duration, _ step: @escaping () -> Void) { at(now + delay, step) }

    /// Takes the next step.
    /// - Returns: false when there is none before the end.
    func step(until end: Timestamp) -> Bool {
        guard let due = queue.earliest, due <= end, let key = queue.popDue(at: due) else { return false }
        now = max(now, due)
        steps.removeValue(forKey: key)?()
        return true
    }
}

/// Everything that happens by chance in a simulation, from one seed.
final class Chance {
    private var source: IdentifierSource

    init(seed: UInt64) { source = IdentifierSource(seed: seed) }

    func hit(_ probability: Double) -> Bool { probability > 0 && source.unit() < probability }
    func number(below bound: Int) -> Int { Int(source.unit() * Double(bound)) }
    func unit() -> Double { source.unit() }

    func seconds(_ range: ClosedRange<Double>) -> Duration {
        .inSeconds(range.lowerBound + (range.upperBound - range.lowerBound) * source.unit())
    }

    func element<T>(of elements: [T]) -> T? { elements.isEmpty ? nil : elements[number(below: elements.count)] }

    /// A source of its own for a part of the simulation.
    func ids() -> IdentifierSource { IdentifierSource(seed: source.next()) }
}
