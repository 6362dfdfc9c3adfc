import NATSClient

/// Follows who is registered for a card, until it is closed.
struct RegistrationWatch: Sendable {
    let consumer: OrderedConsumer
    /// Asks the stream's leader whether what the consumer delivered still stands.
    let confirming: Task<Void, Never>

    func close() {
        consumer.close()
        confirming.cancel()
    }
}
