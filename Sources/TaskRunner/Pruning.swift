/// How much of what is finished is kept.
package struct PruneLimits: Sendable, Equatable {
    package var age: Duration
    package var count: Int
    package var bytes: UInt64

    package init(age: Duration, count: Int, bytes: UInt64) {
        self.age = age
        self.count = count
        self.bytes = bytes
    }
}

/// Which finished directories there are, and which of them have to go. A value without any I/O.
struct PruneLedger: Sendable, Equatable {
    struct Entry: Sendable, Equatable {
        let name: String
        /// Seconds since 1970.
        let finished: Double
        let bytes: UInt64
    }

    /// Oldest first.
    private(set) var entries: [Entry] = []
    private(set) var bytes: UInt64 = 0
    /// The names of the entries: most that are asked for are in none.
    private var names: Set<String> = []

    mutating func add(_ entry: Entry) {
        remove(entry.name)
        // Nearly always the newest, so that this costs one comparison.
        let place = entries.lastIndex { $0.finished <= entry.finished }.map { $0 + 1 } ?? 0
        entries.insert(entry, at: place)
        names.insert(entry.name)
        bytes += entry.bytes
    }

    mutating func remove(_ name: String) {
        guard names.remove(name) != nil, let index = entries.firstIndex(where: { $0.name == name }) else { return }
        bytes -= entries.remove(at: index).bytes
    }

    /// Takes out what exceeds the limits, oldest first.
    mutating func takeExcess(over limits: PruneLimits, now: Double) -> [Entry] {
        var excess = 0
        var left = bytes
        let seconds = Double(limits.age.components.seconds)
        while excess < entries.count {
            let entry = entries[excess]
            let isTooMuch =
                entries.count - excess > limits.count || left > limits.bytes || now - entry.finished > seconds
            guard isTooMuch else { break }
            left -= entry.bytes
            excess += 1
        }
        let taken = Array(entries.prefix(excess))
        entries.removeFirst(excess)
        for entry in taken { names.remove(entry.name) }
        bytes = left
        return taken
    }
}
