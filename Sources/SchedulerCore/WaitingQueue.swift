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

/// A job's place in the queue: higher priority first, then the order of submission, then the id.
struct QueuePlace: Comparable, Sendable {
    let priority: Int
    let order: UInt64
    let job: JobID

    static func < (a: QueuePlace, b: QueuePlace) -> Bool {
        if a.priority != b.priority { return a.priority > b.priority }
        if a.order != b.order { return a.order < b.order }
        return a.job < b.job
    }
}

/// The jobs that could be placed now, by class.
///
/// A job that no longer waits, or waits in another class, leaves its place behind: whoever looks at the first one drops it.
struct WaitingQueue: Sendable {
    private var classes: [PlacementClass: Heap<QueuePlace>] = [:]
    /// The classes with places in them, sorted, so that nothing depends on the order of the dictionary.
    private(set) var order: [PlacementClass] = []

    mutating func insert(_ place: QueuePlace, in placement: PlacementClass) {
        if classes[placement] == nil {
            let index = order.firstIndex { placement < $0 } ?? order.endIndex
            order.insert(placement, at: index)
        }
        classes[placement, default: Heap()].insert(place)
    }

    func first(of placement: PlacementClass) -> QueuePlace? { classes[placement]?.min }

    /// Forgets a class without places.
    mutating func forget(_ placement: PlacementClass) {
        classes[placement] = nil
        order.removeAll { $0 == placement }
    }

    mutating func removeFirst(of placement: PlacementClass) {
        _ = classes[placement]?.popMin()
    }

    /// The first places of a class, at most `count`, without taking them out.
    func firstPlaces(of placement: PlacementClass, count: Int) -> [QueuePlace] {
        guard var heap = classes[placement] else { return [] }
        var places: [QueuePlace] = []
        while places.count < count, let place = heap.popMin() { places.append(place) }
        return places
    }
}
