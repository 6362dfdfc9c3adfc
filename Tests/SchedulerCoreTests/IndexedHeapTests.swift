import JobModel
import Testing

@testable import SchedulerCore

@Suite("Numbers ordered by keys that change") struct IndexedHeapTests {
    /// Unlike any other key, as the heap wants them.
    private struct Key: Comparable {
        let value: Int
        let number: Int

        static func < (a: Key, b: Key) -> Bool { (a.value, a.number) < (b.value, b.number) }
    }

    @Test(arguments: 1...8) func itKnowsTheLeastWhateverChanges(seed: Int) {
        var chance = IdentifierSource(seed: UInt64(seed))
        var heap = IndexedHeap<Key>()
        var known: [Int: Key] = [:]
        for _ in 0..<4000 {
            let number = Int.random(in: 0..<60, using: &chance)
            if Int.random(in: 0..<3, using: &chance) == 0 {
                heap.remove(number)
                known[number] = nil
            } else {
                let key = Key(value: Int.random(in: 0..<20, using: &chance), number: number)
                heap.set(number, to: key)
                known[number] = key
            }
            let order = known.values.sorted()
            #expect(heap.first?.key == order.first)
            #expect(heap.first?.number == order.first?.number)
            #expect(heap.isEmpty == known.isEmpty)
            #expect(heap.contains(number) == (known[number] != nil))
            #expect(heap.key(of: number) == known[number])
            #expect(heap.first(otherThan: number) == order.first { $0.number != number }?.number)
        }
    }
}
