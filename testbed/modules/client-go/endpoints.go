package main

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// endpointsLock keeps client-go's record where client-go kept it up to 0.26 and leader-elector always did: in an
// annotation of Endpoints. The election itself is client-go's.
type endpointsLock struct {
	client         typed.EndpointsInterface
	name, identity string
	seen           *corev1.Endpoints
}

func (l *endpointsLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	seen, err := l.client.Get(ctx, l.name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	l.seen = seen
	record := &resourcelock.LeaderElectionRecord{}
	text, found := seen.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	if found {
		if err := json.Unmarshal([]byte(text), record); err != nil {
			return nil, nil, err
		}
	}
	return record, []byte(text), nil
}

func (l *endpointsLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	l.seen = &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: l.name}}
	if err := annotate(l.seen, record); err != nil {
		return err
	}
	created, err := l.client.Create(ctx, l.seen, metav1.CreateOptions{})
	if err == nil {
		l.seen = created
	}
	return err
}

func (l *endpointsLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	next := l.seen.DeepCopy()
	if err := annotate(next, record); err != nil {
		return err
	}
	updated, err := l.client.Update(ctx, next, metav1.UpdateOptions{})
	if err == nil {
		l.seen = updated
	}
	return err
}

func annotate(endpoints *corev1.Endpoints, record resourcelock.LeaderElectionRecord) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if endpoints.Annotations == nil {
		endpoints.Annotations = map[string]string{}
	}
	endpoints.Annotations[resourcelock.LeaderElectionRecordAnnotationKey] = string(text)
	return nil
}

func (l *endpointsLock) RecordEvent(string) {}

func (l *endpointsLock) Identity() string { return l.identity }

func (l *endpointsLock) Describe() string { return l.name }
