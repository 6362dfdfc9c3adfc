import JobModel

/// The jobs that have not ended, by their ids. Each has a number too, for those who have to name many of them.
///
/// Jobs that wait for their first card are kept packed (``RestingJob``); one that is looked at is unpacked for that, one
/// that is changed stays unpacked until ``rest()`` finds it waiting untouched again.
struct JobTable: Sendable {
    /// One of the two, or neither for a number that is free.
    private var resting: [RestingJob?] = []
    /// Where in `active`; -1 for those that rest.
    private var positions: [Int32] = []
    private var freeNumbers: [UInt32] = []

    private var active: [Job?] = []
    private var freePositions: [Int32] = []
    /// Numbers of jobs that were put in or changed, and are not packed as far as is known.
    private var changed: [UInt32] = []

    private var index = NumberIndex()
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    subscript(id: JobID) -> Job? {
        _read {
            if let number = number(of: id) {
                let position = positions[Int(number)]
                if position >= 0 { yield active[Int(position)] } else { yield resting[Int(number)]?.job }
            } else {
                yield nil
            }
        }
        _modify {
            if let number = number(of: id) {
                let position = activate(number)
                defer { if active[position] == nil { remove(id, number, position) } }
                yield &active[position]
            } else {
                var job: Job?
                defer { if let job { add(job, id) } }
                yield &job
            }
        }
    }

    func number(of id: JobID) -> UInt32? {
        index.find(NumberIndex.hash(id)) { number in
            let position = positions[Int(number)]
            if position >= 0 { return active[Int(position)]?.record.id == id }
            return resting[Int(number)]?.isNamed(id) == true
        }
    }

    /// The id of the job that has the number.
    func id(of number: UInt32) -> JobID? {
        let position = positions[Int(number)]
        return position >= 0 ? active[Int(position)]?.record.id : resting[Int(number)]?.id
    }

    /// Where the job's record stands, as far as is known; nil for a job that is not here.
    func sequence(of id: JobID) -> UInt64? {
        guard let number = number(of: id) else { return nil }
        let position = positions[Int(number)]
        return position >= 0 ? active[Int(position)]?.sequence : resting[Int(number)]?.sequence
    }

    /// Nil for a number that is free.
    func state(of number: UInt32) -> JobState? {
        let position = positions[Int(number)]
        if position >= 0 { return active[Int(position)]?.record.state }
        return resting[Int(number)] == nil ? nil : .enqueued
    }

    /// When its submission was stored, seconds since 1970.
    func submitted(of number: UInt32) -> Double? {
        let position = positions[Int(number)]
        return position >= 0
            ? active[Int(position)]?.record.times.submitted : resting[Int(number)]?.submitted
    }

    /// The numbers of all, with the times of their submission.
    var submissions: some Sequence<(number: UInt32, submitted: Double)> {
        positions.indices.lazy.compactMap { index in
            submitted(of: UInt32(index)).map { (UInt32(index), $0) }
        }
    }

    /// What the job reads.
    func cacheKeys(of number: UInt32) -> [CacheKey] {
        let position = positions[Int(number)]
        guard position < 0 else { return active[Int(position)]?.cacheKeys ?? [] }
        guard let packed = resting[Int(number)], packed.reads else { return [] }
        return packed.job?.cacheKeys ?? []
    }

    /// The place is that of a job which may be bound now.
    func isWaiting(_ place: QueuePlace, in placement: PlacementClass) -> Bool {
        let position = positions[Int(place.number)]
        // One that rests has been in no other class.
        guard position >= 0 else { return resting[Int(place.number)]?.order == place.order }
        guard let job = active[Int(position)] else { return false }
        return job.record.order == place.order && job.placement == placement && job.isWaiting
    }

    /// The place was left behind; if it is the one that the job has, it has none any more.
    mutating func drop(_ place: QueuePlace, in placement: PlacementClass) {
        let position = positions[Int(place.number)]
        guard position >= 0, active[Int(position)]?.record.order == place.order,
            active[Int(position)]?.placement == placement
        else { return }
        active[Int(position)]?.isQueued = false
    }

    /// All that do not rest, in the order of their records. What rests has nothing to be decided but its card.
    var activeBySequence: [JobID] {
        active.compactMap { $0.map { ($0.sequence, $0.record.id) } }.sorted { $0.0 < $1.0 }.map(\.1)
    }

    /// All of them, unpacked; for tests and the like.
    var values: [Job] { active.compactMap { $0 } + resting.compactMap { $0?.job } }
    var keys: [JobID] { values.map(\.record.id) }

    // MARK: changing

    private mutating func add(_ job: Job, _ id: JobID) {
        let number = freeNumbers.popLast() ?? UInt32(positions.count)
        if number == positions.count {
            positions.append(-1)
            resting.append(nil)
        }
        positions[Int(number)] = Int32(place(job))
        changed.append(number)
        index.insert(number, NumberIndex.hash(id))
        count += 1
    }

    private mutating func place(_ job: Job) -> Int {
        guard let position = freePositions.popLast() else {
            active.append(job)
            return active.count - 1
        }
        active[Int(position)] = job
        return Int(position)
    }

    private mutating func remove(_ id: JobID, _ number: UInt32, _ position: Int) {
        index.remove(number, NumberIndex.hash(id))
        freePositions.append(Int32(position))
        positions[Int(number)] = -1
        freeNumbers.append(number)
        count -= 1
    }

    private mutating func activate(_ number: UInt32) -> Int {
        if changed.last != number { changed.append(number) }
        if positions[Int(number)] < 0, let job = resting[Int(number)]?.job {
            positions[Int(number)] = Int32(place(job))
            resting[Int(number)] = nil
        }
        return Int(positions[Int(number)])
    }

    /// Packs what was changed and now waits for its first card.
    mutating func rest() {
        for number in changed {
            let position = positions[Int(number)]
            guard position >= 0, let packed = active[Int(position)].flatMap({ RestingJob($0) }) else { continue }
            resting[Int(number)] = packed
            active[Int(position)] = nil
            freePositions.append(position)
            positions[Int(number)] = -1
        }
        changed.removeAll(keepingCapacity: true)
    }
}

/// Numbers by the hashes of what they stand for, in open addressing: the least memory for a million of them.
struct NumberIndex: Sendable {
    /// The hash above, the number plus one below; 0 is free.
    private var cells: [UInt64] = Array(repeating: 0, count: 16)
    private var count = 0

    /// - Returns: 32 bits that differ from process to process, so that nobody can choose ids that meet.
    static func hash(_ id: JobID) -> UInt32 {
        var hasher = Hasher()
        hasher.combine(id)
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }

    private var mask: Int { cells.count - 1 }

    func find(_ hash: UInt32, _ isIt: (UInt32) -> Bool) -> UInt32? {
        var cell = Int(hash) & mask
        while cells[cell] != 0 {
            if UInt32(cells[cell] >> 32) == hash {
                let number = UInt32(truncatingIfNeeded: cells[cell]) - 1
                if isIt(number) { return number }
            }
            cell = (cell + 1) & mask
        }
        return nil
    }

    mutating func insert(_ number: UInt32, _ hash: UInt32) {
        if count * 4 >= cells.count * 3 { grow() }
        count += 1
        put(UInt64(hash) << 32 | UInt64(number + 1))
    }

    private mutating func put(_ value: UInt64) {
        var cell = Int(value >> 32) & mask
        while cells[cell] != 0 { cell = (cell + 1) & mask }
        cells[cell] = value
    }

    private mutating func grow() {
        let old = cells
        cells = Array(repeating: 0, count: old.count * 2)
        for value in old where value != 0 { put(value) }
    }

    /// Takes a number out. What stands behind it moves up, so that every search still ends at the first free cell.
    mutating func remove(_ number: UInt32, _ hash: UInt32) {
        let value = UInt64(hash) << 32 | UInt64(number + 1)
        var free = Int(hash) & mask
        while cells[free] != value {
            guard cells[free] != 0 else { return }
            free = (free + 1) & mask
        }
        count -= 1
        var cell = (free + 1) & mask
        while cells[cell] != 0 {
            let wanted = Int(cells[cell] >> 32) & mask
            // Its search must pass the free cell to get to where it stands.
            if (cell - wanted) & mask >= (cell - free) & mask {
                cells[free] = cells[cell]
                free = cell
            }
            cell = (cell + 1) & mask
        }
        cells[free] = 0
    }
}
