/// A binary heap of (deadline, number) pairs, earliest deadline first.
///
/// Adding a deadline that is later than all others, as requests with one common timeout do, costs one comparison.
struct DeadlineHeap {
    struct Entry {
        let deadline: UInt64
        let number: UInt64
    }

    private var entries: [Entry] = []

    var count: Int { entries.count }
    var first: Entry? { entries.first }

    mutating func add(_ entry: Entry) {
        entries.append(entry)
        var child = entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            if entries[parent].deadline <= entry.deadline { break }
            entries[child] = entries[parent]
            child = parent
        }
        entries[child] = entry
    }

    mutating func removeFirst() {
        guard let last = entries.popLast(), !entries.isEmpty else { return }
        var parent = 0
        while true {
            var child = 2 * parent + 1
            if child >= entries.count { break }
            if child + 1 < entries.count && entries[child + 1].deadline < entries[child].deadline { child += 1 }
            if last.deadline <= entries[child].deadline { break }
            entries[parent] = entries[child]
            parent = child
        }
        entries[parent] = last
    }

    /// Drops the entries that no longer matter.
    mutating func keep(where isLive: (Entry) -> Bool) {
        // In order of deadline, an array is a heap.
        entries = entries.filter(isLive).sorted { $0.deadline < $1.deadline }
    }
}
