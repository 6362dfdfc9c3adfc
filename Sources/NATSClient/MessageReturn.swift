import CNATS
import Synchronization

/// Gives messages back to the library, many at a time.
///
/// The library frees messages on a thread of its own, which it wakes for each that is destroyed while it waits (natsGC of
/// libnats 3.4.1): two switches of threads and a lock that both want, for every message sent or received. In batches it is
/// woken once for many.
enum MessageReturn {
    /// Messages of one batch, and bytes of payload: few enough that what waits is small. Its thread locks the heap that the
    /// loop allocates from for each that it frees, so the fewer times it runs, the fewer times they meet.
    private static let batch = (messages: 256, bytes: 64 << 10)

    /// A message that nobody uses any more.
    ///
    /// Unchecked: whoever has it may only give it back.
    @safe
    private struct Unused: @unchecked Sendable {
        let message: OpaquePointer

        init(_ message: OpaquePointer) { unsafe self.message = message }
    }

    private struct Waiting {
        var messages: [Unused] = []
        var bytes = 0
    }

    private static let waiting = Mutex(Waiting())

    /// Takes a message that the caller will not touch again.
    static func giveBack(_ message: OpaquePointer) {
        let size = Int(unsafe natsMsg_GetDataLength(message))
        let unused = unsafe Unused(message)
        let full = waiting.withLock { waiting -> [Unused]? in
            waiting.messages.append(unused)
            waiting.bytes += size
            guard waiting.messages.count >= batch.messages || waiting.bytes >= batch.bytes else { return nil }
            defer {
                waiting = Waiting()
                waiting.messages.reserveCapacity(batch.messages)
            }
            return waiting.messages
        }
        for one in full ?? [] { unsafe natsMsg_Destroy(one.message) }
    }
}
