import WireJSON

/// What anybody with the right to may ask of a card's cache, on `gpu.cache.<verb>`.
package struct CacheRequest: Sendable, Equatable {
    package var verb: Verb
    package var gpu: GPUID

    /// The last token of the subject.
    package enum Verb: String, Sendable, CaseIterable {
        /// Save what jobs wrote, now.
        case sync
        /// Read small files into memory.
        case prewarm
    }

    package init(_ verb: Verb, _ gpu: GPUID) {
        self.verb = verb
        self.gpu = gpu
    }

    package init(_ verb: Verb, parsing bytes: [UInt8]) throws(MalformedMessage) {
        let body: JSON
        do {
            body = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage("cache request", error.description)
        }
        guard let gpu = (body["gpu"] ?? body["gpu_id"]).flatMap({ GPUID($0) }) else {
            throw MalformedMessage("cache request", "it names no card; write {\"gpu\":0}, or {\"gpu\":\"rig1-0\"}")
        }
        self.init(verb, gpu)
    }
}
