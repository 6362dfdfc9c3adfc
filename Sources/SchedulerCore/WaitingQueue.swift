import HeapModule
import JobModel

/// What a job asks of a card. Jobs that ask for the same share one class, and one decision serves the whole class.
struct PlacementClass: Hashable, Comparable, Sendable {
    /// The only card that may run them, if they are pinned.
    var pin: GPUID?
    /// The card that their last attempts failed on: they go there only while no other card may take them.
    var avoid: GPUID?
    /// Only a worker may run them that can end them when it is cut off.
    var isFenced = false

    static func < (a: PlacementClass, b: PlacementClass) -> Bool {
        if a.pin != b.pin { return isBefore(a.pin, b.pin) }
        if a.avoid != b.avoid { return isBefore(a.avoid, b.avoid) }
        return !a.isFenced && b.isFenced
    }

    /// No card comes before any.
    private static func isBefore(_ a: GPUID?, _ b: GPUID?) -> Bool {
        switch (a, b) {
        case (nil, nil), (_?, nil): false
        case (nil, _?): true
        case (let x?, let y?): x < y
        }
    }
}

/// A job's place in the queue: higher priority first, then the order of submission. Orders differ, unless the stream of
/// submissions was made anew; then the job's number decides, that is, which of them the core heard of first.
struct QueuePlace: Comparable, Sendable {
    let priority: Int32
    /// Of the job, in ``JobTable``.
    let number: UInt32
    let order: UInt64

    static func < (a: QueuePlace, b: QueuePlace) -> Bool {
        if a.priority != b.priority { return a.priority > b.priority }
        if a.order != b.order { return a.order < b.order }
        return a.number < b.number
    }
}

/// The jobs that could be placed now, by class, and the class that comes first.
///
/// A job that no longer waits, or waits in another class, leaves its place behind: whoever looks at the first one drops it.
///
/// A class for which there is no card is closed: it is not looked at until something opens it again. Those that take any
/// card need not be closed one by one when there is none at all: ``first(anyCard:)`` is told.
struct WaitingQueue: Sendable {
    private struct Waiting: Sendable {
        let placement: PlacementClass
        var places = Heap<QueuePlace>()
        var isClosed = false
    }

    private var classes: [Waiting?] = []
    private var numbers: [PlacementClass: Int] = [:]
    private var free: [Int] = []
    /// The open classes by their first places: those that take any card, and those pinned to one.
    private var anyCard = IndexedHeap<QueuePlace>()
    private var pinned = IndexedHeap<QueuePlace>()
    private var closed: [GPUID?: [Int]] = [:]

    /// - Returns: whether the class is new.
    mutating func insert(_ place: QueuePlace, in placement: PlacementClass) -> Bool {
        let known = numbers[placement]
        let number = known ?? add(placement)
        classes[number]?.places.insert(place)
        if classes[number]?.places.min == place { reorder(number) }
        return known == nil
    }

    private mutating func add(_ placement: PlacementClass) -> Int {
        let number = free.popLast() ?? classes.count
        if number == classes.count { classes.append(nil) }
        classes[number] = Waiting(placement: placement)
        numbers[placement] = number
        return number
    }

    /// Puts an open class where its first place belongs.
    private mutating func reorder(_ number: Int) {
        guard let placement = classes[number]?.placement, classes[number]?.isClosed == false,
            let first = classes[number]?.places.min
        else { return }
        if placement.pin == nil { anyCard.set(number, to: first) } else { pinned.set(number, to: first) }
    }

    /// The number of a class with places in it; another one may get it once there are none.
    func number(of placement: PlacementClass) -> Int? { numbers[placement] }

    /// The class that has a number.
    func placement(of number: Int) -> PlacementClass? { classes[number]?.placement }

    /// The number of the open class whose first place is the first of all.
    /// - Parameter anyCard: classes that are not pinned count too.
    func first(anyCard isAnyCard: Bool) -> Int? {
        switch (isAnyCard ? anyCard.first : nil, pinned.first) {
        case (let any?, let pinned?): any.key < pinned.key ? any.number : pinned.number
        case (let any, let pinned): any?.number ?? pinned?.number
        }
    }

    /// The first place of the class with that number.
    func first(of number: Int) -> QueuePlace? { classes[number]?.places.min }

    /// - Returns: the class, when that was its last place and it is forgotten.
    mutating func removeFirst(of number: Int) -> PlacementClass? {
        _ = classes[number]?.places.popMin()
        if classes[number]?.places.isEmpty == false {
            reorder(number)
            return nil
        }
        guard let emptied = classes[number] else { return nil }
        if emptied.isClosed { closed[emptied.placement.pin]?.removeAll { $0 == number } }
        anyCard.remove(number)
        pinned.remove(number)
        classes[number] = nil
        numbers[emptied.placement] = nil
        free.append(number)
        return emptied.placement
    }

    /// Leaves a class alone until it is opened.
    mutating func close(_ number: Int) {
        guard let placement = classes[number]?.placement, classes[number]?.isClosed == false else { return }
        classes[number]?.isClosed = true
        closed[placement.pin, default: []].append(number)
        anyCard.remove(number)
        pinned.remove(number)
    }

    /// Opens the classes that are pinned to a card, or with nil those that are not pinned.
    mutating func open(pinnedTo gpu: GPUID?) {
        for number in closed.removeValue(forKey: gpu) ?? [] {
            classes[number]?.isClosed = false
            reorder(number)
        }
    }

    /// The classes with places in them, sorted, so that nothing depends on the order of the dictionary.
    var order: [PlacementClass] { numbers.keys.sorted() }

    /// The first places of a class, at most `count`, without taking them out.
    func firstPlaces(of placement: PlacementClass, count: Int) -> [QueuePlace] {
        guard var heap = numbers[placement].flatMap({ classes[$0]?.places }) else { return [] }
        var places: [QueuePlace] = []
        while places.count < count, let place = heap.popMin() { places.append(place) }
        return places
    }
}
