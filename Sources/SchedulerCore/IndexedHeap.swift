/// Numbers ordered by a key each, whose keys may change: the least is known at once, a change costs the logarithm of the
/// count.
///
/// Numbers are meant to be places of a table: small, and used again. Keys must differ, so that the order is one.
struct IndexedHeap<Key: Comparable & Sendable>: Sendable {
    private struct Element {
        var key: Key
        var number: Int
    }

    private var elements: [Element] = []
    /// Where each number stands in `elements`; -1 for those that are not in the heap.
    private var positions: [Int] = []

    var isEmpty: Bool { elements.isEmpty }

    func contains(_ number: Int) -> Bool { number < positions.count && positions[number] >= 0 }

    /// The number with the least key.
    var first: (number: Int, key: Key)? { elements.first.map { ($0.number, $0.key) } }

    /// The key of a number; nil when it is not in.
    func key(of number: Int) -> Key? { contains(number) ? elements[positions[number]].key : nil }

    /// The number with the least key among all but one.
    func first(otherThan number: Int) -> Int? {
        guard let least = elements.first else { return nil }
        if least.number != number { return least.number }
        // The next one stands right below it.
        guard elements.count > 1 else { return nil }
        return elements.count > 2 && elements[2].key < elements[1].key ? elements[2].number : elements[1].number
    }

    /// Puts a number in, or in its new place.
    mutating func set(_ number: Int, to key: Key) {
        if number >= positions.count {
            positions += Array(repeating: -1, count: number + 1 - positions.count)
        }
        let position = positions[number]
        guard position >= 0 else {
            elements.append(Element(key: key, number: number))
            return rise(from: elements.count - 1)
        }
        let isLess = key < elements[position].key
        elements[position].key = key
        if isLess { rise(from: position) } else { sink(from: position) }
    }

    /// Takes a number out, if it is in.
    mutating func remove(_ number: Int) {
        guard contains(number) else { return }
        let position = positions[number]
        positions[number] = -1
        let last = elements.removeLast()
        guard position < elements.count else { return }
        let isLess = last.key < elements[position].key
        elements[position] = last
        if isLess { rise(from: position) } else { sink(from: position) }
    }

    private mutating func rise(from start: Int) {
        var position = start
        while position > 0 {
            let parent = (position - 1) / 2
            guard elements[position].key < elements[parent].key else { break }
            exchange(position, parent)
            position = parent
        }
        positions[elements[position].number] = position
    }

    private mutating func sink(from start: Int) {
        var position = start
        while true {
            var least = 2 * position + 1
            guard least < elements.count else { break }
            if least + 1 < elements.count, elements[least + 1].key < elements[least].key { least += 1 }
            guard elements[least].key < elements[position].key else { break }
            exchange(position, least)
            position = least
        }
        positions[elements[position].number] = position
    }

    /// Moves the element at `moving` on; where it stands is put down when it has come to rest.
    private mutating func exchange(_ moving: Int, _ other: Int) {
        elements.swapAt(moving, other)
        positions[elements[moving].number] = moving
    }
}
