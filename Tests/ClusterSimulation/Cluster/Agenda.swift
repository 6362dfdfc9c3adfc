import HeapModule
import JobModel

/// Virtual time: steps happen in the order of their times, and the clock jumps from one to the next.
package final class Agenda {
    private struct Step: Comparable {
        let due: Timestamp
        /// Keeps equal times in the order they were set.
        let serial: UInt64
        let body: () -> Void

        static func < (a: Step, b: Step) -> Bool { a.due == b.due ? a.serial < b.serial : a.due < b.due }
        static func == (a: Step, b: Step) -> Bool { a.serial == b.serial }
    }

    package static let beginning = Timestamp(nanoseconds: 1_700_000_000_000_000_000)

    package private(set) var now = Agenda.beginning
    /// Steps taken so far.
    package private(set) var count: UInt64 = 0
    private var steps = Heap<Step>()

    package init() {}

    package func at(_ due: Timestamp, _ body: @escaping () -> Void) {
        count += 1
        steps.insert(Step(due: max(due, now), serial: count, body: body))
    }

    /// Forgets what was still to come.
    package func clear() { steps = Heap() }

    package func after(_ delay: Duration, _ body: @escaping () -> Void) { at(now + delay, body) }

    /// Takes the next step.
    /// - Returns: false when there is none before the end; the clock stands at the end then.
    package func step(until end: Timestamp) -> Bool {
        guard let next = steps.min, next.due <= end else {
            now = max(now, end)
            return false
        }
        steps.removeMin()
        now = next.due
        next.body()
        return true
    }
}

/// Everything that happens by chance in a simulation, from one seed.
package final class Chance {
    private var source: IdentifierSource

    package init(seed: UInt64) { source = IdentifierSource(seed: seed) }

    package func hit(_ probability: Double) -> Bool { probability > 0 && source.unit() < probability }
    package func number(below bound: Int) -> Int { Int(source.unit() * Double(bound)) }
    package func unit() -> Double { source.unit() }

    package func seconds(_ range: ClosedRange<Double>) -> Duration {
        .nanoseconds(Int64((range.lowerBound + (range.upperBound - range.lowerBound) * source.unit()) * 1e9))
    }

    package func element<T>(of elements: [T]) -> T? { elements.isEmpty ? nil : elements[number(below: elements.count)] }

    /// A source of its own for a part of the simulation.
    package func ids() -> IdentifierSource { IdentifierSource(seed: source.next()) }
}
