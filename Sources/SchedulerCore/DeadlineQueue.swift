import HeapModule
import JobModel

/// The deadlines a core waits for, earliest first.
///
/// A deadline is not taken out when it loses its meaning: whoever handles it checks whether it still applies.
struct DeadlineQueue<Kind: Sendable>: Sendable {
    private struct Entry: Comparable {
        let due: Timestamp
        /// Keeps equal deadlines in the order they were set.
        let serial: UInt64
        let kind: Kind

        static func < (a: Entry, b: Entry) -> Bool { (a.due, a.serial) < (b.due, b.serial) }
        static func == (a: Entry, b: Entry) -> Bool { a.serial == b.serial }
    }

    private var heap = Heap<Entry>()
    private var serial: UInt64 = 0

    var earliest: Timestamp? { heap.min?.due }
    var count: Int { heap.count }

    mutating func insert(_ kind: Kind, at due: Timestamp) {
        serial += 1
        heap.insert(Entry(due: due, serial: serial, kind: kind))
    }

    /// The earliest deadline that has passed, if one has.
    mutating func popDue(at now: Timestamp) -> Kind? {
        guard let first = heap.min, first.due <= now else { return nil }
        return heap.popMin()?.kind
    }
}
