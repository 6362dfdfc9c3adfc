import CNATS
import Synchronization

/// Gives messages back to the library, many at a time.
///
/// The library frees messages on a thread of its own, which it wakes for each that is destroyed while it waits (natsGC of
/// libnats 3.4.1): two switches of threads and a lock that both want, for every message sent or received. In batches it is
/// woken once for many.
enum MessageReturn {
    /// Messages of one batch.
    private static let batch = 32
    /// Bytes of a payload from which on a message is given back at once, so that what waits is small.
    private static let size: Int32 = 2048

    /// A message that nobody uses any more.
    ///
    /// Unchecked: whoever has it may only give it back.
    @safe
    private struct Unused: @unchecked Sendable {
        let message: OpaquePointer

        init(_ message: OpaquePointer) { unsafe self.message = message }
    }

    private static let waiting = Mutex<[Unused]>([])

    /// Takes a message that the caller will not touch again.
    static func giveBack(_ message: OpaquePointer) {
        guard unsafe natsMsg_GetDataLength(message) < size else { return unsafe natsMsg_Destroy(message) }
        let unused = unsafe Unused(message)
        let full = waiting.withLock { waiting -> [Unused]? in
            waiting.append(unused)
            guard waiting.count >= batch else { return nil }
            defer {
                waiting = []
                waiting.reserveCapacity(batch)
            }
            return waiting
        }
        for one in full ?? [] { unsafe natsMsg_Destroy(one.message) }
    }
}
